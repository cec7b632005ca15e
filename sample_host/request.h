/* request.h: what the commands that make pictures share: seeds, sizes, the model. */
#ifndef ATTUNE_REQUEST_H
#define ATTUNE_REQUEST_H

#include "app.h"

enum { REQUEST_MOST_IMAGES = 1 << 20 };

/* A seed that leaves room for REQUEST_MOST_IMAGES after it, from the text of option `name`; -1 or NULL: drawn
 * at random. A wrong one is wrong usage. */
attune_code request_seed(struct app *app, const char *name, const char *text, uint64_t *seed);

/* ATTUNE_RANDN_… by its name, without regard to case; 0 where there is none. */
int request_randn(const char *name, uint32_t *out);

/* Steps and pixels (0 = the model's) within what a request may ask for, else wrong usage. */
attune_code request_extent(struct app *app, int steps, int width, int height);

/* Say so, open the model (the caller closes it) and warn of words of the prompt that it does not know. */
attune_code request_model(struct app *app, const char *path, const char *config, const char *prompt,
                          attune_model **model);

/* Take all steps of a session, then its image `index`. */
attune_code request_draw(attune_session *session, uint32_t index, attune_image *image, attune_error *error);

#endif
