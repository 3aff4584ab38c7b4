/* The program that reads and writes in the benchmarks: cheap enough not to be what is measured, and it checks every page.
 *
 * Content of a file: bytes that look random, and at the start of every 4 KiB page eight bytes that say which file (FNV-1a
 * of its base name) and which page of it this is. So every page that is read is known to be the right one, at the cost of
 * one comparison. Prints one JSON object; exit status 1 when something failed or was wrong.
 *
 *   load make FILE BYTES                              a file with this content
 *   load make-many DIR COUNT BYTES                    COUNT of them, 000000 and up
 *   load sequential FILE STREAMS BLOCK                STREAMS readers, each its part of the file from start to end
 *   load part FILE BYTES BLOCK                        the first BYTES of the file, by one reader, who has the kernel keep
 *                                                     little of them: a machine that gets its memory from a host
 *                                                     only when it is touched would charge that to the reading
 *   load files DIR THREADS COUNT SEED                 list DIR (timed apart), read COUNT of its files whole, in an order
 *                                                     made from SEED, 0 for the order of the names
 *   load walk DIR COUNT SEED TAKEN OF PAUSE           one after the other, in the order of the names (or SEED's), read
 *                                                     whole TAKEN of each OF files among the first COUNT, and rest
 *                                                     PAUSE milliseconds after each
 *   load random FILE THREADS COUNT BYTES SEED         COUNT reads of BYTES at aligned random offsets
 *   load first DIR COUNT                              open and read one page of COUNT files, one after the other
 *   load write FILE BYTES BLOCK                       one file, close included
 *   load write-many DIR THREADS COUNT BYTES           COUNT files, each closed
 *   load handles DIR HANDLES THREADS SECONDS          HANDLES open files of DIR in a mix of sequential and random readers
 *   load check FILE...                                whether files have this content
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define MIB (1UL << 20)
#define KEPT (64 * MIB)

struct tally {
    uint64_t bytes, operations, wrong;
    int error; /* the first errno */
    char where[256];
};

struct job {
    pthread_t thread;
    unsigned index, threads;
    struct tally tally;
};

static char **arguments;
static char **names; /* of load files, load walk, load first and load handles */
static size_t name_count;
static uint64_t *delays; /* nanoseconds, of load first, load random and load walk */
static double limit_seconds;

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000UL + (uint64_t)time.tv_nsec;
}

static uint32_t identity(const char *path) {
    const char *name = strrchr(path, '/');
    uint32_t hash = 2166136261U;
    for (name = name ? name + 1 : path; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 16777619U;
    return hash;
}

static uint64_t next_random(uint64_t *state) { /* xorshift64* */
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 2685821657736338717UL;
}

static uint64_t stamp(uint32_t file, uint64_t page) { return (uint64_t)file << 32 | (uint32_t)page; }

static void fail(struct tally *tally, const char *what, int error) {
    if (!tally->error) {
        tally->error = error ? error : EIO;
        snprintf(tally->where, sizeof tally->where, "%s", what);
    }
}

static unsigned char *buffer_of(size_t size) {
    void *buffer;
    if (posix_memalign(&buffer, PAGE, size)) {
        perror("load");
        exit(2);
    }
    memset(buffer, 0, size); /* its pages are there before the clock runs */
    return buffer;
}

/* Counts the pages in [offset, offset + size) whose stamp is not the one it should be. */
static uint64_t wrong_pages(const unsigned char *data, uint32_t file, uint64_t offset, size_t size) {
    uint64_t wrong = 0, first = (PAGE - offset % PAGE) % PAGE;
    for (uint64_t at = first; at + 8 <= size; at += PAGE) {
        uint64_t found;
        memcpy(&found, data + at, 8);
        wrong += found != stamp(file, (offset + at) / PAGE);
    }
    return wrong;
}

static void put_stamps(unsigned char *data, uint32_t file, uint64_t offset, size_t size) {
    for (uint64_t at = 0; at + 8 <= size; at += PAGE) {
        uint64_t value = stamp(file, (offset + at) / PAGE);
        memcpy(data + at, &value, 8);
    }
}

/* Reads up to `end` in calls of `block` bytes; `end` 0: to the end of the file. */
static void read_range(int descriptor, const char *path, unsigned char *buffer, size_t block, uint64_t offset,
                       uint64_t end, struct tally *tally) {
    uint32_t file = identity(path);
    while (!end || offset < end) {
        size_t wanted = end && end - offset < block ? end - offset : block;
        ssize_t got = pread(descriptor, buffer, wanted, (off_t)offset);
        if (got < 0) {
            fail(tally, path, errno);
            return;
        }
        if (!got)
            return;
        tally->wrong += wrong_pages(buffer, file, offset, (size_t)got);
        tally->bytes += (uint64_t)got;
        offset += (uint64_t)got;
    }
}

static void read_part(int descriptor, unsigned char *buffer, size_t block, uint64_t size, struct tally *tally) {
    for (uint64_t offset = 0; offset < size && !tally->error; offset += KEPT) {
        uint64_t end = size - offset < KEPT ? size : offset + KEPT;
        read_range(descriptor, arguments[0], buffer, block, offset, end, tally);
        posix_fadvise(descriptor, (off_t)offset, (off_t)(end - offset), POSIX_FADV_DONTNEED);
    }
}

static void read_file(const char *path, unsigned char *buffer, struct tally *tally) {
    int descriptor = open(path, O_RDONLY);
    if (descriptor < 0) {
        fail(tally, path, errno);
        return;
    }
    read_range(descriptor, path, buffer, MIB, 0, 0, tally);
    close(descriptor);
    tally->operations++;
}

static void write_file(const char *path, unsigned char *buffer, uint64_t size, size_t block, struct tally *tally) {
    uint32_t file = identity(path);
    int descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (descriptor < 0) {
        fail(tally, path, errno);
        return;
    }
    for (uint64_t offset = 0; offset < size;) {
        size_t wanted = size - offset < block ? size - offset : block;
        put_stamps(buffer, file, offset, wanted);
        ssize_t done = write(descriptor, buffer, wanted);
        if (done <= 0) {
            fail(tally, path, errno);
            break;
        }
        offset += (uint64_t)done;
        tally->bytes += (uint64_t)done;
    }
    if (close(descriptor))
        fail(tally, path, errno);
    tally->operations++;
}

static void noise(unsigned char *buffer, size_t size) {
    uint64_t state = 88172645463325252UL;
    for (size_t at = 0; at + 8 <= size; at += 8) {
        uint64_t value = next_random(&state);
        memcpy(buffer + at, &value, 8);
    }
}

static void *sequential(void *argument) {
    struct job *job = argument;
    size_t block = strtoul(arguments[2], 0, 10);
    unsigned char *buffer = buffer_of(block);
    struct stat found;
    int descriptor = open(arguments[0], O_RDONLY);
    if (descriptor < 0 || fstat(descriptor, &found)) {
        fail(&job->tally, arguments[0], errno);
        return 0;
    }
    uint64_t part = ((uint64_t)found.st_size / job->threads + block - 1) / block * block;
    uint64_t start = part * job->index, end = start + part;
    if (end > (uint64_t)found.st_size)
        end = (uint64_t)found.st_size;
    if (start < end)
        read_range(descriptor, arguments[0], buffer, block, start, end, &job->tally);
    close(descriptor);
    job->tally.operations++;
    return 0;
}

static void *files(void *argument) {
    struct job *job = argument;
    unsigned char *buffer = buffer_of(MIB);
    char path[4096];
    for (size_t index = job->index; index < name_count; index += job->threads) {
        snprintf(path, sizeof path, "%s/%s", arguments[0], names[index]);
        read_file(path, buffer, &job->tally);
    }
    return 0;
}

/* Delays are those of open to close. */
static void *walk(void *argument) {
    struct job *job = argument;
    size_t taken = strtoul(arguments[3], 0, 10), of = strtoul(arguments[4], 0, 10), read = 0;
    long pause = strtol(arguments[5], 0, 10);
    struct timespec rest = {pause / 1000, pause % 1000 * 1000000L};
    unsigned char *buffer = buffer_of(MIB);
    char path[4096];
    for (size_t index = 0; index < name_count; index++) {
        if (index % of >= taken)
            continue;
        snprintf(path, sizeof path, "%s/%s", arguments[0], names[index]);
        uint64_t start = now();
        read_file(path, buffer, &job->tally);
        delays[read++] = now() - start;
        if (pause)
            nanosleep(&rest, 0);
    }
    return 0;
}

static void *random_reads(void *argument) {
    struct job *job = argument;
    size_t count = strtoul(arguments[2], 0, 10), size = strtoul(arguments[3], 0, 10);
    uint64_t state = strtoul(arguments[4], 0, 10) * 7919 + job->index + 1;
    unsigned char *buffer = buffer_of(size);
    struct stat found;
    int descriptor = open(arguments[0], O_RDONLY);
    if (descriptor < 0 || fstat(descriptor, &found)) {
        fail(&job->tally, arguments[0], errno);
        return 0;
    }
    posix_fadvise(descriptor, 0, 0, POSIX_FADV_RANDOM); /* the kernel's own read-ahead is not the question here */
    for (size_t index = job->index; index < count; index += job->threads) {
        uint64_t offset = next_random(&state) % ((uint64_t)found.st_size / size) * size, start = now();
        ssize_t got = pread(descriptor, buffer, size, (off_t)offset);
        delays[index] = now() - start;
        if (got != (ssize_t)size) {
            fail(&job->tally, arguments[0], got < 0 ? errno : EIO);
            break;
        }
        job->tally.wrong += wrong_pages(buffer, identity(arguments[0]), offset, size);
        job->tally.bytes += size;
        job->tally.operations++;
    }
    close(descriptor);
    return 0;
}

static void *first_bytes(void *argument) {
    struct job *job = argument;
    unsigned char *buffer = buffer_of(PAGE);
    char path[4096];
    for (size_t index = 0; index < name_count; index++) {
        snprintf(path, sizeof path, "%s/%s", arguments[0], names[index]);
        uint64_t start = now();
        int descriptor = open(path, O_RDONLY);
        ssize_t got = descriptor < 0 ? -1 : read(descriptor, buffer, PAGE);
        delays[index] = now() - start;
        if (got <= 0)
            fail(&job->tally, path, errno);
        else
            job->tally.wrong += wrong_pages(buffer, identity(path), 0, (size_t)got);
        job->tally.bytes += got > 0 ? (uint64_t)got : 0;
        job->tally.operations++;
        if (descriptor >= 0)
            close(descriptor);
    }
    return 0;
}

static void *write_many(void *argument) {
    struct job *job = argument;
    size_t count = strtoul(arguments[2], 0, 10), size = strtoul(arguments[3], 0, 10);
    unsigned char *buffer = buffer_of(MIB);
    noise(buffer, MIB);
    char path[4096];
    for (size_t index = job->index; index < count; index += job->threads) {
        snprintf(path, sizeof path, "%s/%06zu", arguments[0], index);
        write_file(path, buffer, size, MIB, &job->tally);
    }
    return 0;
}

/* Each thread goes round its share of the handles: one block from each, even ones sequential, odd ones random. */
static void *handles(void *argument) {
    struct job *job = argument;
    size_t count = strtoul(arguments[1], 0, 10), mine = 0;
    unsigned char *buffer = buffer_of(MIB);
    uint64_t state = job->index + 1, *offsets = calloc(count, sizeof *offsets);
    int *descriptors = calloc(count, sizeof *descriptors);
    size_t *which = calloc(count, sizeof *which);
    struct stat found = {0};
    char path[4096];
    for (size_t index = job->index; index < count; index += job->threads) {
        snprintf(path, sizeof path, "%s/%s", arguments[0], names[index % name_count]);
        which[mine] = index % name_count;
        descriptors[mine] = open(path, O_RDONLY);
        if (descriptors[mine] < 0 || fstat(descriptors[mine], &found)) {
            fail(&job->tally, path, errno);
            return 0;
        }
        mine++;
    }
    uint64_t end = now() + (uint64_t)(limit_seconds * 1e9), pages = (uint64_t)found.st_size / MIB;
    while (now() < end && !job->tally.error)
        for (size_t index = 0; index < mine && now() < end; index++) {
            uint64_t offset = index % 2 ? next_random(&state) % pages * MIB : offsets[index];
            ssize_t got = pread(descriptors[index], buffer, MIB, (off_t)offset);
            if (got <= 0) {
                fail(&job->tally, names[which[index]], got < 0 ? errno : EIO);
                break;
            }
            job->tally.wrong += wrong_pages(buffer, identity(names[which[index]]), offset, (size_t)got);
            job->tally.bytes += (uint64_t)got;
            job->tally.operations++;
            posix_fadvise(descriptors[index], (off_t)offset, MIB, POSIX_FADV_DONTNEED); /* not to read it from there again */
            offsets[index] = (offset + MIB) % ((uint64_t)found.st_size / MIB * MIB);
        }
    for (size_t index = 0; index < mine; index++)
        close(descriptors[index]);
    return 0;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }
static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The names in a directory, sorted, or shuffled by `seed`; the first `count` of them. */
static void list(const char *path, size_t count, uint64_t seed) {
    DIR *directory = opendir(path);
    size_t room = 0;
    if (!directory) {
        perror(path);
        exit(1);
    }
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (entry->d_name[0] == '.')
            continue;
        if (name_count == room)
            names = realloc(names, (room = room ? room * 2 : 1024) * sizeof *names);
        names[name_count++] = strdup(entry->d_name);
    }
    closedir(directory);
    if (!name_count) {
        fprintf(stderr, "load: %s is empty\n", path);
        exit(1);
    }
    qsort(names, name_count, sizeof *names, by_name);
    for (size_t index = name_count - 1; seed && index > 0; index--) {
        size_t other = next_random(&seed) % (index + 1);
        char *kept = names[index];
        names[index] = names[other];
        names[other] = kept;
    }
    if (count && count < name_count)
        name_count = count;
}

static int report(struct job *jobs, unsigned threads, double seconds, double listing, size_t delay_count) {
    struct tally total = {0};
    for (unsigned index = 0; index < threads; index++) {
        struct tally *tally = &jobs[index].tally;
        total.bytes += tally->bytes;
        total.operations += tally->operations;
        total.wrong += tally->wrong;
        if (tally->error)
            fail(&total, tally->where, tally->error);
    }
    double median = 0, late = 0;
    if (delay_count) {
        qsort(delays, delay_count, sizeof *delays, by_value);
        median = (double)delays[delay_count / 2] / 1e9;
        late = (double)delays[delay_count * 99 / 100] / 1e9;
    }
    printf("{\"seconds\": %.6f, \"listing_seconds\": %.6f, \"bytes\": %" PRIu64 ", \"operations\": %" PRIu64
           ", \"wrong\": %" PRIu64 ", \"median\": %.6f, \"p99\": %.6f, \"error\": \"%s%s%s\"}\n",
           seconds, listing, total.bytes, total.operations, total.wrong, median, late,
           total.error ? strerror(total.error) : "", total.error ? ": " : "", total.where);
    return total.error || total.wrong ? 1 : 0;
}

static int run(void *(*work)(void *), unsigned threads, double listing, size_t delay_count) {
    struct job *jobs = calloc(threads, sizeof *jobs);
    uint64_t start = now();
    for (unsigned index = 0; index < threads; index++) {
        jobs[index].index = index;
        jobs[index].threads = threads;
        pthread_create(&jobs[index].thread, 0, work, &jobs[index]);
    }
    for (unsigned index = 0; index < threads; index++)
        pthread_join(jobs[index].thread, 0);
    return report(jobs, threads, (double)(now() - start) / 1e9, listing, delay_count);
}

static int make(const char *path, uint64_t size, unsigned char *buffer) {
    struct tally tally = {0};
    write_file(path, buffer, size, MIB, &tally);
    if (tally.error)
        fprintf(stderr, "load: %s: %s\n", path, strerror(tally.error));
    return tally.error ? 1 : 0;
}

static int check(int count) {
    struct job job = {0};
    unsigned char *buffer = buffer_of(MIB);
    for (int index = 0; index < count; index++)
        read_file(arguments[index], buffer, &job.tally);
    return report(&job, 1, 0, 0, 0);
}

static int number(int index) { return atoi(arguments[index]); }

int main(int count, char **vector) {
    if (count < 3) {
        fprintf(stderr, "load: see the head of load.c\n");
        return 2;
    }
    const char *what = vector[1];
    unsigned char *buffer = buffer_of(MIB);
    noise(buffer, MIB);
    arguments = vector + 2;
    count -= 2;
    uint64_t start = now();
    if (!strcmp(what, "make") && count == 2)
        return make(arguments[0], strtoull(arguments[1], 0, 10), buffer);
    if (!strcmp(what, "make-many") && count == 3) {
        char path[4096];
        for (int index = 0; index < number(1); index++) {
            snprintf(path, sizeof path, "%s/%06d", arguments[0], index);
            if (make(path, strtoull(arguments[2], 0, 10), buffer))
                return 1;
        }
        return 0;
    }
    if (!strcmp(what, "sequential") && count == 3)
        return run(sequential, (unsigned)number(1), 0, 0);
    if (!strcmp(what, "part") && count == 3) {
        struct job job = {0};
        size_t block = strtoul(arguments[2], 0, 10);
        unsigned char *data = buffer_of(block);
        start = now();
        int descriptor = open(arguments[0], O_RDONLY);
        if (descriptor < 0)
            fail(&job.tally, arguments[0], errno);
        else
            read_part(descriptor, data, block, strtoull(arguments[1], 0, 10), &job.tally);
        close(descriptor);
        return report(&job, 1, (double)(now() - start) / 1e9, 0, 0);
    }
    if (!strcmp(what, "files") && count == 4) {
        list(arguments[0], strtoul(arguments[2], 0, 10), strtoull(arguments[3], 0, 10));
        return run(files, (unsigned)number(1), (double)(now() - start) / 1e9, 0);
    }
    if (!strcmp(what, "walk") && count == 6 && number(4) > 0) {
        list(arguments[0], strtoul(arguments[1], 0, 10), strtoull(arguments[2], 0, 10));
        size_t taken = strtoul(arguments[3], 0, 10), of = strtoul(arguments[4], 0, 10), over = name_count % of;
        delays = calloc(name_count, sizeof *delays);
        return run(walk, 1, (double)(now() - start) / 1e9, name_count / of * taken + (over < taken ? over : taken));
    }
    if (!strcmp(what, "random") && count == 5) {
        delays = calloc((size_t)number(2), sizeof *delays);
        return run(random_reads, (unsigned)number(1), 0, (size_t)number(2));
    }
    if (!strcmp(what, "first") && count == 2) {
        list(arguments[0], strtoul(arguments[1], 0, 10), 1);
        delays = calloc(name_count, sizeof *delays);
        return run(first_bytes, 1, (double)(now() - start) / 1e9, name_count);
    }
    if (!strcmp(what, "write") && count == 3) {
        struct job job = {0};
        size_t block = strtoul(arguments[2], 0, 10);
        unsigned char *data = buffer_of(block);
        noise(data, block);
        start = now();
        write_file(arguments[0], data, strtoull(arguments[1], 0, 10), block, &job.tally);
        return report(&job, 1, (double)(now() - start) / 1e9, 0, 0);
    }
    if (!strcmp(what, "write-many") && count == 4)
        return run(write_many, (unsigned)number(1), 0, 0);
    if (!strcmp(what, "handles") && count == 4) {
        list(arguments[0], 0, 0);
        limit_seconds = atof(arguments[3]);
        return run(handles, (unsigned)number(2), (double)(now() - start) / 1e9, 0);
    }
    if (!strcmp(what, "check"))
        return check(count);
    fprintf(stderr, "load: %s with %d arguments is unknown; see the head of load.c\n", what, count);
    return 2;
}
