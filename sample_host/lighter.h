/* lighter.h: what takes less memory, where a request did not fit. */
#ifndef ATTUNE_LIGHTER_H
#define ATTUNE_LIGHTER_H

#include "app.h"

/* After app->error of a session that did not open or, without a limit, of one of its steps: where memory was
 * short its hint names a loaded backend that fits where another is required, found by opening a session with
 * each; without a limit, the options whose plan is smaller. A limit alone has made the plan as small as it
 * gets. */
void lighter_hint(struct app *app, attune_model *model, const attune_request *request);

#endif
