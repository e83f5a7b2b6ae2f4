/* From YAML maps to the typed structs of a job. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_RECIPE_BIND_H
#define AM_JOBS_RECIPE_BIND_H

#include "jobs/recipe/yaml.h"
#include "mpi/param.h"

/** Fill `object` from the keys of a map.
 *
 * map     NULL: only defaults (and an error if the table has required keys)
 * table   every key of the map must be in it, or in `others`; a null value leaves the default
 * others  NULL-terminated keys that the caller reads itself (lists, maps); may be NULL
 * what    names the map in messages ("train"); "" for the top of the recipe
 * object  overwritten with defaults first; am_param_free it, also after an error
 *
 * Errors: AM_E_RECIPE listing every unknown key with its place and the nearest valid one; or the
 * first value of a wrong type or out of range; or the required keys that are missing. Local, pure.
 */
int am_recipe_bind(const am_node *map, const am_param *table, const char *const *others,
                   const char *what, void *object);

/** Only the check of the keys: each must be in `table` (may be NULL) or `others` (may be NULL). */
int am_recipe_check_keys(const am_node *map, const am_param *table, const char *const *others,
                         const char *what);

/** Paths as a recipe means them: relative to the working folder; if one of them is not there and
 * all of them are beside the recipe, relative to the folder of the recipe (never some here, some
 * there). Looks at the file system on rank 0 only.
 *
 * Collective [comm]; path [n], recipe [same]; out [n] is overwritten: owned strings, the same on
 * all ranks (NULL after an error). Errors: AM_E_NOMEM, agreed. */
int am_recipe_paths_all(MPI_Comm comm, const char *const *path, int n, const char *recipe,
                        char **out);
/** The same for one path. */
int am_recipe_path_all(MPI_Comm comm, const char *path, const char *recipe, char **out);

#endif
