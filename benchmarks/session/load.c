/* The load: one kind of work by some threads for some seconds on a mount of the tree of tree.h.
 *
 *   load KIND ROOT THREADS SECONDS
 *
 * Prints one JSON line: seconds, bytes, operations, errors (system calls that failed, and bytes that are not what they
 * must be), cpu (of this process, seconds). Every read is checked by the number that its pages begin with. Page cache
 * of the files it is about to read is dropped before the clock starts.
 */
#define _GNU_SOURCE
#include "tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MIB (1UL << 20)
#define MOST_THREADS 64
#define REWRITTEN (256UL << 20) /* a writer begins again after this much */

static const char *root;
static long threads;
static double seconds;
static pthread_barrier_t start;
static atomic_long bytes, operations, errors;
static atomic_int over;

struct worker {
    long number;
    char *buffer;
    long bytes, operations, errors;
};

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

/* Counted; the first one of a thread is told in words. */
static void wrong(struct worker *self, const char *what) {
    if (!self->errors++) fprintf(stderr, "%s: %s\n", what, strerror(errno));
    errno = 0;
}

static uint64_t next_random(uint64_t *state) { /* xorshift */
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static int open_at(const char *name, int flags) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root, name);
    int file = open(path, flags, 0644);
    if (file < 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(1);
    }
    return file;
}

static int directory(void) { return open_at("small", O_RDONLY | O_DIRECTORY); }

static int is_page(const char *buffer, uint64_t expected) { return !memcmp(buffer, &expected, sizeof expected); }

static void check_big(struct worker *self, uint64_t offset, ssize_t length, size_t wanted) {
    if (length != (ssize_t)wanted || !is_page(self->buffer, page_of_big(offset / PAGE)) ||
        !is_page(self->buffer + wanted - PAGE, page_of_big((offset + wanted) / PAGE - 1)))
        wrong(self, "a read of big");
    self->operations++;
    self->bytes += length > 0 ? length : 0;
}

static void wait_for_start(void) { pthread_barrier_wait(&start); }

static void read_in_order(struct worker *self, int flags) {
    int file = open_at("big", O_RDONLY | flags);
    uint64_t region = BIG_SIZE / threads, begin = region * self->number, offset = begin;
    posix_fadvise(file, begin, region, POSIX_FADV_DONTNEED);
    wait_for_start();
    while (!over) {
        check_big(self, offset, pread(file, self->buffer, MIB, offset), MIB);
        offset += MIB;
        if (offset == begin + region) {
            if (!flags) break; /* from the page cache the second time */
            offset = begin;
        }
    }
    close(file);
}

static void buffered(struct worker *self) { read_in_order(self, 0); }
static void direct(struct worker *self) { read_in_order(self, O_DIRECT); }

static void random_reads(struct worker *self) {
    int file = open_at("big", O_RDONLY);
    uint64_t state = 88172645463325252UL + self->number * 7919;
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    posix_fadvise(file, 0, 0, POSIX_FADV_RANDOM);
    wait_for_start();
    while (!over) {
        uint64_t offset = next_random(&state) % (BIG_SIZE / PAGE) * PAGE;
        check_big(self, offset, pread(file, self->buffer, PAGE, offset), PAGE);
    }
    close(file);
}

static void small_files(struct worker *self) {
    int where = directory();
    char name[16];
    wait_for_start();
    for (uint64_t number = SMALL_COUNT / threads * self->number; !over; number = (number + 1) % SMALL_COUNT) {
        snprintf(name, sizeof name, "f%05lu", (unsigned long)number);
        int file = openat(where, name, O_RDONLY);
        ssize_t length, total = 0;
        while ((length = read(file, self->buffer + total, MIB - total)) > 0) total += length;
        if (total != (ssize_t)SMALL_SIZE || !is_page(self->buffer, page_of_small(number, 0)) ||
            !is_page(self->buffer + SMALL_SIZE - PAGE, page_of_small(number, SMALL_PAGES - 1)))
            wrong(self, name);
        if (close(file)) wrong(self, "close");
        self->bytes += total;
        self->operations++;
    }
    close(where);
}

static void stats(struct worker *self) {
    int where = directory();
    char name[16];
    struct stat found;
    wait_for_start();
    for (uint64_t number = SMALL_COUNT / threads * self->number; !over; number = (number + 1) % SMALL_COUNT) {
        snprintf(name, sizeof name, "f%05lu", (unsigned long)number);
        if (fstatat(where, name, &found, 0) || found.st_size != (off_t)SMALL_SIZE) wrong(self, name);
        self->operations++;
    }
    close(where);
}

static void lookups(struct worker *self) { /* O_PATH: the kernel asks for the name and opens nothing */
    int where = directory();
    char name[16];
    wait_for_start();
    for (uint64_t number = SMALL_COUNT / threads * self->number; !over; number = (number + 1) % SMALL_COUNT) {
        snprintf(name, sizeof name, "f%05lu", (unsigned long)number);
        int file = openat(where, name, O_PATH);
        if (file < 0 || close(file)) wrong(self, name);
        self->operations++;
    }
    close(where);
}

static void attributes(struct worker *self) {
    int where = directory();
    struct stat found;
    char name[16];
    snprintf(name, sizeof name, "f%05ld", self->number);
    int file = openat(where, name, O_RDONLY);
    wait_for_start();
    while (!over) {
        if (fstat(file, &found) || found.st_size != (off_t)SMALL_SIZE) wrong(self, name);
        self->operations++;
    }
    close(file);
    close(where);
}

static void readdirs(struct worker *self) {
    wait_for_start();
    while (!over) {
        int where = directory();
        long length, entries = 0;
        while ((length = syscall(SYS_getdents64, where, self->buffer, MIB)) > 0)
            for (long offset = 0; offset < length; entries++)
                offset += ((struct dirent64 *)(self->buffer + offset))->d_reclen;
        if (length < 0) wrong(self, "getdents");
        else if (entries != (long)SMALL_COUNT + 2) wrong(self, "too many or too few entries");
        self->operations += entries;
        close(where);
    }
}

static void write_in_order(struct worker *self, int flags) {
    char name[64];
    snprintf(name, sizeof name, "out.%ld", self->number);
    int file = open_at(name, O_WRONLY | O_CREAT | flags);
    memset(self->buffer, 'x', MIB);
    wait_for_start();
    for (uint64_t offset = 0; !over; offset = (offset + MIB) % REWRITTEN) {
        if (pwrite(file, self->buffer, MIB, offset) != (ssize_t)MIB) wrong(self, "write");
        self->bytes += MIB;
        self->operations++;
    }
    if (close(file)) wrong(self, "close");
}

static void write_buffered(struct worker *self) { write_in_order(self, 0); }
static void write_direct(struct worker *self) { write_in_order(self, O_DIRECT); }

static const struct {
    const char *name;
    void (*work)(struct worker *);
} kinds[] = {
    {"buffered", buffered}, {"direct", direct},         {"random", random_reads},
    {"small", small_files}, {"stat", stats},            {"lookup", lookups},
    {"getattr", attributes}, {"readdir", readdirs},     {"write", write_buffered},
    {"write-direct", write_direct},
};
static void (*work)(struct worker *);

static void *run(void *argument) {
    struct worker *self = argument;
    if (posix_memalign((void **)&self->buffer, PAGE, MIB)) exit(1);
    memset(self->buffer, 0, MIB);
    work(self);
    free(self->buffer);
    atomic_fetch_add(&bytes, self->bytes);
    atomic_fetch_add(&operations, self->operations);
    atomic_fetch_add(&errors, self->errors);
    return NULL;
}

static void *end(void *unused) {
    struct timespec time = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
    (void)unused;
    nanosleep(&time, NULL);
    over = 1;
    return NULL;
}

int main(int count, char **words) {
    if (count == 5)
        for (size_t number = 0; number < sizeof kinds / sizeof *kinds; number++)
            if (!strcmp(words[1], kinds[number].name)) work = kinds[number].work;
    if (!work || (threads = atol(words[3])) < 1 || threads > MOST_THREADS) {
        fprintf(stderr, "usage: load KIND ROOT THREADS SECONDS\n");
        return 2;
    }
    root = words[2];
    seconds = atof(words[4]);
    static struct worker workers[MOST_THREADS];
    pthread_t running[MOST_THREADS], timer;
    pthread_barrier_init(&start, NULL, threads + 1);
    for (long number = 0; number < threads; number++) {
        workers[number].number = number;
        pthread_create(&running[number], NULL, run, &workers[number]);
    }
    wait_for_start();
    double begin = now();
    pthread_create(&timer, NULL, end, NULL);
    for (long number = 0; number < threads; number++) pthread_join(running[number], NULL);
    double elapsed = now() - begin;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("{\"seconds\": %.6f, \"bytes\": %ld, \"operations\": %ld, \"errors\": %ld, \"cpu\": %.3f}\n", elapsed, bytes,
           operations, errors,
           used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6);
    return errors ? 1 : 0;
}
