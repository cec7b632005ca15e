/* interrupt.h: Ctrl-C asks the running request to stop; a second Ctrl-C ends at once. Nothing half-written
 * stays. */
#ifndef ATTUNE_INTERRUPT_H
#define ATTUNE_INTERRUPT_H

#include "attune/plugin.h"

/* Handle SIGINT and SIGTERM; ignore SIGPIPE and SIGXFSZ, so that a closed standard output and a file that may
 * not grow are errors and not deaths. */
void interrupt_install(void);

/* The control to pass to every long call: cancelled once a signal came. */
const attune_control *interrupt_control(void);

#endif
