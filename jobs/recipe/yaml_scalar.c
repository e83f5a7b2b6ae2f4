/* What a plain scalar is: the implicit resolver of PyYAML (YAML 1.1), as small recognisers instead
 * of regular expressions. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/recipe/yaml_internal.h"

enum { AM_MAX_NUMBER = 512 }; /* characters: a longer scalar is text */

static bool is_one_of(const char *text, const char *const *words)
{
    for (int i = 0; words[i] != NULL; i++) {
        if (strcmp(text, words[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_null_word(const char *text)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL", NULL};
    return is_one_of(text, words);
}

static bool is_true_word(const char *text)
{
    static const char *const words[] = {"yes",  "Yes", "YES", "true", "True",
                                        "TRUE", "on",  "On",  "ON",   NULL};
    return is_one_of(text, words);
}

static bool is_false_word(const char *text)
{
    static const char *const words[] = {"no",    "No",  "NO",  "false", "False",
                                        "FALSE", "off", "Off", "OFF",   NULL};
    return is_one_of(text, words);
}

/* Copy without underscores; false when it does not fit. */
static bool strip_underscores(const char *text, char *out)
{
    size_t n = 0;
    for (; *text != '\0'; text++) {
        if (*text != '_') {
            if (n + 1 >= AM_MAX_NUMBER) {
                return false;
            }
            out[n++] = *text;
        }
    }
    out[n] = '\0';
    return true;
}

/* (:[0-5]?[0-9])+ from `text`; returns what follows, NULL if there is no such group. */
static const char *skip_sixties(const char *text)
{
    const char *at = text;
    while (*at == ':') {
        size_t digits = strspn(at + 1, "0123456789");
        if (digits < 1 || digits > 2 || (digits == 2 && at[1] > '5')) {
            return NULL;
        }
        at += 1 + digits;
    }
    return at > text ? at : NULL;
}

static double add_sixties(const char *digits)
{
    double value = 0;
    while (*digits != '\0') {
        char *end = NULL;
        value = value * 60 + strtod(digits, &end);
        digits = *end == ':' ? end + 1 : end + strlen(end);
    }
    return value;
}

/* Unsigned digits in `base` into integer/real with saturation. */
static void set_integer(am_node *node, const char *digits, int base, bool is_negative)
{
    uint64_t value = 0;
    double real = 0;
    for (; *digits != '\0'; digits++) {
        int digit = *digits <= '9' ? *digits - '0' : (*digits | 32) - 'a' + 10;
        real = real * base + digit;
        if (__builtin_mul_overflow(value, (uint64_t)base, &value) ||
            __builtin_add_overflow(value, (uint64_t)digit, &value)) {
            node->is_huge = true;
        }
    }
    node->is_huge = node->is_huge || value > (uint64_t)INT64_MAX + (is_negative ? 1u : 0u);
    if (node->is_huge) {
        node->integer = is_negative ? INT64_MIN : INT64_MAX;
    } else {
        node->integer = is_negative ? (int64_t)(0 - value) : (int64_t)value;
        real = (double)value;
    }
    node->real = is_negative ? -real : real;
    node->scalar = AM_SCALAR_INT;
}

/* [-+]? ( 0b[01_]+ | 0[0-7_]+ | 0 | [1-9][0-9_]* | 0x[0-9a-fA-F_]+ | [1-9][0-9_]*(:[0-5]?[0-9])+ )
 */
static bool resolve_integer(am_node *node)
{
    const char *text = node->text;
    bool is_negative = *text == '-';
    text += *text == '-' || *text == '+';
    int base = 10;
    const char *allowed = "0123456789_";
    if (text[0] == '0' && text[1] == 'b') {
        base = 2;
        allowed = "01_";
    } else if (text[0] == '0' && text[1] == 'x') {
        base = 16;
        allowed = "0123456789abcdefABCDEF_";
    } else if (text[0] == '0' && text[1] != '\0') {
        base = 8;
        allowed = "01234567_";
    } else if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    text += base == 2 || base == 16 ? 2 : 0;
    size_t run = strspn(text, allowed);
    const char *rest = text + run;
    bool is_sixties = base == 10 && *text != '0' && *rest == ':';
    if (is_sixties) {
        rest = skip_sixties(rest);
    }
    char digits[AM_MAX_NUMBER];
    if (run == 0 || rest == NULL || *rest != '\0' || !strip_underscores(text, digits) ||
        digits[0] == '\0') {
        return false;
    }
    if (is_sixties) {
        double value = add_sixties(digits);
        node->is_huge = value > 9e15;
        node->integer = node->is_huge ? (is_negative ? INT64_MIN : INT64_MAX)
                                      : (int64_t)(is_negative ? -value : value);
        node->real = is_negative ? -value : value;
        node->scalar = AM_SCALAR_INT;
    } else {
        set_integer(node, digits, base, is_negative);
    }
    return true;
}

static bool set_real(am_node *node, const char *text)
{
    char plain[AM_MAX_NUMBER];
    if (!strip_underscores(text, plain)) {
        return false;
    }
    char *end = NULL;
    node->real = strtod(plain, &end);
    node->scalar = AM_SCALAR_REAL;
    return *end == '\0';
}

/* [-+]?\.(inf|Inf|INF) or \.(nan|NaN|NAN) */
static bool resolve_special(am_node *node)
{
    static const char *const inf[] = {".inf", ".Inf", ".INF", NULL};
    static const char *const nan_words[] = {".nan", ".NaN", ".NAN", NULL};
    const char *text = node->text;
    bool is_signed = *text == '-' || *text == '+';
    if (is_one_of(text + is_signed, inf)) {
        node->real = *text == '-' ? -(double)INFINITY : (double)INFINITY;
    } else if (is_one_of(text, nan_words)) {
        node->real = (double)NAN;
    } else {
        return false;
    }
    node->scalar = AM_SCALAR_REAL;
    return true;
}

/* [-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)? | \.[0-9][0-9_]*([eE][-+][0-9]+)?
 * | [-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]* */
static bool resolve_real(am_node *node)
{
    const char *text = node->text;
    bool is_signed = *text == '-' || *text == '+';
    const char *at = text + is_signed;
    bool has_digits = *at >= '0' && *at <= '9';
    at += has_digits ? strspn(at, "0123456789_") : 0;
    bool is_sixties = has_digits && *at == ':';
    if (is_sixties && (at = skip_sixties(at)) == NULL) {
        return false;
    }
    if (*at != '.' || (!has_digits && (is_signed || at[1] < '0' || at[1] > '9'))) {
        return false;
    }
    at++;
    at += strspn(at, "0123456789_");
    if (!is_sixties && (*at == 'e' || *at == 'E') && (at[1] == '-' || at[1] == '+')) {
        size_t digits = strspn(at + 2, "0123456789");
        at += digits > 0 ? 2 + digits : 0;
    }
    if (*at != '\0') {
        return false;
    }
    if (is_sixties) {
        char plain[AM_MAX_NUMBER];
        if (!strip_underscores(text + is_signed, plain)) {
            return false;
        }
        double value = add_sixties(plain);
        node->real = *text == '-' ? -value : value;
        node->scalar = AM_SCALAR_REAL;
        return true;
    }
    return set_real(node, text);
}

void am_yaml_resolve(am_node *node)
{
    node->scalar = AM_SCALAR_TEXT;
    if (is_null_word(node->text)) {
        node->scalar = AM_SCALAR_NULL;
    } else if (is_true_word(node->text) || is_false_word(node->text)) {
        node->scalar = AM_SCALAR_BOOL;
        node->boolean = is_true_word(node->text);
    } else if (!resolve_special(node) && !resolve_real(node) && !resolve_integer(node)) {
        node->scalar = AM_SCALAR_TEXT;
    }
}
