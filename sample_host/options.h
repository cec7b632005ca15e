/*
 * options.h: reading the command line and COMMANDLINE_ARGS: the options of a command, those of every command
 * and the web UI's, and the wish that they make.
 */
#ifndef ATTUNE_OPTIONS_H
#define ATTUNE_OPTIONS_H

#include "app.h"

extern struct app the_app; /* popt's tables need constant addresses */

/* Read argv and, for a command that draws, COMMANDLINE_ARGS after it into the_app; with --help only that. */
attune_code options_read(const command *which, int argc, const char **argv);

/* The command's --help on standard output. */
void options_help(const command *which);

/* Free what the options hold. */
void options_free(void);

#endif
