/* Sends back what its clients send, line by line or not, one client after the other. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The first descriptor that a container finds open: see LISTEN_FDS in sd_listen_fds(3). */
#define FIRST_LISTENER 3

static void echo(int client) {
    char buffer[4096];
    for (;;) {
        ssize_t length = recv(client, buffer, sizeof buffer, 0);
        if (length <= 0)
            return;
        for (ssize_t sent = 0; sent < length;) {
            ssize_t part = send(client, buffer + sent, length - sent, 0);
            if (part < 0)
                return;
            sent += part;
        }
    }
}

int main(void) {
    const char *count = getenv("LISTEN_FDS");
    if (count == NULL || atoi(count) < 1) {
        fputs("no socket to listen on: the container declares no TCP port\n", stderr);
        return 1;
    }
    puts("listening");
    fflush(stdout);
    for (;;) {
        int client = accept(FIRST_LISTENER, NULL, NULL);
        if (client < 0) {
            fprintf(stderr, "accept: %s\n", strerror(errno));
            return 1;
        }
        echo(client);
        close(client);
    }
}
