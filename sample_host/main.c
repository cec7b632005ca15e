/* main.c: sample_host, the command line host: finds the command and hands over. */
#include "app.h"
#include "interrupt.h"
#include "nearest.h"

#include <fcntl.h>
#include <unistd.h>

static const command *const commands[] = {
    &txt2img_command,         &session_command,     &plugins_command,          &attention_command,
    &bench_attention_command, &bench_image_command, &study_determinism_command};
#define COMMANDS (sizeof commands / sizeof commands[0])

static void print_help(FILE *stream) {
    fputs("Usage: sample_host COMMAND [OPTION…]\n\nStable Diffusion through plugins: attention backends "
          "chosen per "
          "request, with the reason.\n\nCommands:\n",
          stream);
    for (size_t i = 0; i < COMMANDS; ++i)
        fprintf(stream, "  %-18s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\nsample_host COMMAND --help lists a command's options. Exit status: 0 done, 1 failed, 2 wrong "
          "usage,\n"
          "3 no backend can serve the request, 130 interrupted.\n\n"
          "Try: sample_host txt2img \"red apple\"\n",
          stream);
}

/* The command that argv[1] (and argv[2], for "bench attention") names; *used = how many words. */
static const command *find_command(int argc, const char **argv, int *used) {
    for (size_t i = 0; i < COMMANDS; ++i) {
        const char *name = commands[i]->name, *space = strchr(name, ' ');
        size_t first = space ? (size_t)(space - name) : strlen(name);
        *used = space ? 2 : 1;
        if (strlen(argv[1]) == first && strncmp(argv[1], name, first) == 0 &&
            (!space || (argc > 2 && strcmp(argv[2], space + 1) == 0)))
            return commands[i];
    }
    return NULL;
}

static int unknown_command(int argc, const char **argv) {
    const char *names[COMMANDS];
    size_t first = strlen(argv[1]);
    for (size_t i = 0; i < COMMANDS; ++i) {
        names[i] = commands[i]->name;
        if (strncmp(names[i], argv[1], first) == 0 && names[i][first] == ' ') {
            fprintf(stderr, "sample_host: error: %s what? \"%s\"; try sample_host %s\n", argv[1],
                    argc > 2 ? argv[2] : "", names[i]);
            return EXIT_USAGE;
        }
    }
    const char *close = nearest_word(argv[1], names, COMMANDS);
    fprintf(stderr, "sample_host: error: unknown command \"%s\"%s%s%s; sample_host --help lists them\n",
            argv[1], close ? "; did you mean " : "", close ? close : "", close ? "?" : "");
    return EXIT_USAGE;
}

/* A descriptor 0 to 2 that is closed would become the next file that is opened, and be written to. It is
 * taken, and stays as unusable: glibc does so for set-user-ID programs. */
static int take_standard_descriptors(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            return -1;
    return 0;
}

int main(int argc, char **arguments) {
    const char **argv = (const char **)arguments;
    if (take_standard_descriptors() != 0)
        return EXIT_FAILED;
    interrupt_install();
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return app_end_output(EXIT_DONE);
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("sample_host " ATTUNE_VERSION);
        return app_end_output(EXIT_DONE);
    }
    int used;
    const command *which = find_command(argc, argv, &used);
    return which ? app_run(which, argc - used, argv + used) : unknown_command(argc, argv);
}
