/* commandline_args.h: the words of COMMANDLINE_ARGS, the environment variable with the web UI's arguments. */
#ifndef ATTUNE_COMMANDLINE_ARGS_H
#define ATTUNE_COMMANDLINE_ARGS_H

/*
 * Split as a shell would, without expanding anything: Python's shlex.split, which the web UI uses. Returns
 * how many words there are, in *words; −1 where a quote is not closed or a backslash ends the text; −2 where
 * there is no memory. The caller frees *words, and with it the words, in each case. popt's
 * poptParseArgvString lets open quotes pass and loses empty words.
 */
int commandline_args_split(const char *text, const char ***words);

#endif
