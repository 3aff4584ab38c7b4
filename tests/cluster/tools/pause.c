/* The process of a pod's sandbox: holds its namespaces, reaps orphans, ends at SIGTERM. */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int number) { (void)number; _exit(0); }

static void reap(int number) {
    (void)number;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
}

int main(void) {
    struct sigaction reaping = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
    if (signal(SIGTERM, end) == SIG_ERR || signal(SIGINT, end) == SIG_ERR || sigaction(SIGCHLD, &reaping, NULL) < 0)
        return 1;
    for (;;)
        pause();
}
