/* daemon(3), and a pid file locked with flock(2): the limit at all.
   limit                     become a daemon, tell, sleep
   limit lock PATH COUNT     lock and unlock; tells the nanoseconds of one round */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void tell(const char *line) {
    int fifo = open(getenv("BENCH_FIFO"), O_WRONLY);
    if (fifo < 0 || dprintf(fifo, "%s\n", line) < 0) exit(1);
    close(fifo);
}

static int take(const char *path) {
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB)) {
        fprintf(stderr, "%s is locked\n", path);
        exit(1);
    }
    return fd;
}

static void name(int fd) {
    struct stat found;
    if (fstat(fd, &found) || (found.st_size && ftruncate(fd, 0))) exit(1);
    if (dprintf(fd, "%d\n", getpid()) < 0) exit(1);
}

int main(int argc, char **argv) {
    char line[100];
    if (argc == 4) {
        int count = atoi(argv[3]);
        long long began = now();
        for (int i = 0; i < count; i++) {
            int fd = take(argv[2]);
            name(fd);
            unlink(argv[2]);
            close(fd);
        }
        snprintf(line, sizeof line, "%lld", (now() - began) / count);
        tell(line);
        return 0;
    }
    long long opening = now();
    const char *pidfile = getenv("BENCH_PIDFILE"), *then = getenv("BENCH_THEN");
    int fd = pidfile ? take(pidfile) : -1;
    if (daemon(0, 0)) return 1;
    if (fd >= 0) name(fd);
    snprintf(line, sizeof line, "%d %lld %lld %lld", getpid(), opening, opening, now());
    tell(line);
    if (then && *then == 'e') return 0;
    for (;;) pause();
}
