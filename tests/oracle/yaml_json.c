/* yaml_json FILE: the document as JSON, or "error: ..." and exit 1. For test_pyyaml.py.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include "jobs/recipe/yaml.h"
#include "mpi/error.h"

static char text[AM_YAML_MAX_BYTES + 2];

int main(int argc, char **argv)
{
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    am_yaml *yaml = NULL;
    am_json j = {0};
    if (file == NULL) {
        return 2;
    }
    size_t n = fread(text, 1, sizeof text - 1, file);
    (void)fclose(file);
    int rc = am_yaml_parse(text, (int64_t)n, "r.yml", &yaml);
    if (rc == 0) {
        am_node_json(am_yaml_root(yaml), NULL, &j);
        (void)puts(j.text);
    } else {
        (void)printf("error: %s\n", am_error_message());
    }
    am_json_free(&j);
    am_yaml_free(&yaml);
    return rc == 0 ? 0 : 1;
}
