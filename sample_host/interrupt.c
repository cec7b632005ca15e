/* interrupt.c: signals become the control's `cancelled`. */
#include "interrupt.h"
#include "app.h"
#include "output.h"

#include <signal.h>
#include <unistd.h>

static volatile sig_atomic_t asked;

static void handle(int signal_number) {
    (void)signal_number;
    if (asked) {
        output_abandon_all();
        _exit(EXIT_INTERRUPTED);
    }
    asked = 1;
}

static int32_t cancelled(void *context) {
    (void)context;
    return asked;
}

void interrupt_install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handle;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
    sigaction(SIGXFSZ, &action, NULL);
}

const attune_control *interrupt_control(void) {
    static const attune_control control = {.struct_size = sizeof control, .cancelled = cancelled};
    return &control;
}
