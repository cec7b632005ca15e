/*
 * fixture_plugins.h: install fixture plugins (tests/fixtures) with a manifest into a folder, as an
 * application would find them, and change the manifest so that it lies.
 */
#ifndef TESTS_SUPPORT_FIXTURE_PLUGINS_H
#define TESTS_SUPPORT_FIXTURE_PLUGINS_H

#include <jansson.h>

/* A new empty folder of mode 0755 beneath run_folder(): removed with it. Static text, good until 64 more are
 * made. */
const char *fixture_folder(void);

/* What a true manifest says about one library ("plain", "racy", …), without size and hash; the caller owns
 * it. */
json_t *fixture_library(const char *name);

/* A manifest of the named libraries (ends with NULL); the caller owns it. */
json_t *fixture_manifest(const char *name, ...) __attribute__((sentinel));

/* Copy the libraries that a manifest names from the build into `folder`, fill in size and SHA-256 where the
 * manifest has none yet, and write it there as manifest.json. Takes over the manifest; returns the path of
 * manifest.json, static as above. The test fails where anything does. */
const char *fixture_install(const char *folder, json_t *manifest);

/* All in one: a new folder with a true manifest of these libraries. */
const char *fixture_plugins(const char *name, ...) __attribute__((sentinel));

/* Set the value at a path such as "libraries.0.attention.1.priority" (NULL: delete it); takes over `value`.
 */
void fixture_set(json_t *manifest, const char *path, json_t *value);
json_t *fixture_get(json_t *manifest, const char *path);

#endif
