/* The measure: the tree of tree.h on libfuse's low-level API, as good as a C program on this libfuse gets.
 *
 *   reference DESCRIPTOR THREADS CLONES    an open /dev/fuse whose mount(2) is done; 0 threads is the single-threaded
 *                                          loop, otherwise libfuse's threads; CLONES 1: each with a descriptor of its own
 *                                          (clone_fd), 0: all with this one
 *
 * Reads are answered from memory without a copy in user space, close(2) of a reader asks nothing (noflush), the kernel
 * may have 64 requests in the background. Names and attributes of files are never cached by the kernel: each one is
 * asked for; those of directories are, so that a path costs what its last name costs. The bytes are in huge pages: how
 * scattered small ones happen to lie in a process makes a third of the speed of large reads.
 */
#define FUSE_USE_VERSION 312
#define _GNU_SOURCE
#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { ROOT = 1, BIG = 2, SMALL = 3, FIRST_SMALL = 100, FIRST_WRITTEN = 1000000 };

#define HUGE_PAGE (2UL << 20)
#define RING (8UL << 20)
#define LARGEST_WRITE (1UL << 20)
#define MOST_WRITTEN 64
#define DIRECTORY_ENTRIES_START 2 /* "." and ".." have offsets 1 and 2 */

static char *span;
static char *ring;
static struct {
    char name[64];
    atomic_ulong size;
} written[MOST_WRITTEN];
static atomic_ulong written_count;

static int is_small(fuse_ino_t inode) { return inode >= FIRST_SMALL && inode < FIRST_SMALL + SMALL_COUNT; }

static int is_written(fuse_ino_t inode) {
    return inode >= FIRST_WRITTEN && inode < FIRST_WRITTEN + atomic_load(&written_count);
}

static void attributes(fuse_ino_t inode, struct stat *found) {
    memset(found, 0, sizeof *found);
    found->st_ino = inode;
    found->st_nlink = 1;
    found->st_blksize = 4096;
    found->st_mtime = found->st_atime = found->st_ctime = 1700000000;
    if (inode == ROOT || inode == SMALL) {
        found->st_mode = S_IFDIR | 0755;
        found->st_size = 4096;
        return;
    }
    found->st_mode = S_IFREG | 0644;
    if (inode == BIG)
        found->st_size = BIG_SIZE;
    else if (is_small(inode))
        found->st_size = SMALL_SIZE;
    else
        found->st_size = atomic_load(&written[inode - FIRST_WRITTEN].size);
    found->st_blocks = (found->st_size + 511) / 512;
}

static double timeout_of(fuse_ino_t inode) { return inode == ROOT || inode == SMALL ? 300 : 0; }

static void entry(fuse_ino_t inode, struct fuse_entry_param *found) {
    memset(found, 0, sizeof *found);
    found->ino = inode;
    attributes(inode, &found->attr);
    found->entry_timeout = found->attr_timeout = timeout_of(inode);
}

static int exists(fuse_ino_t inode) {
    return inode == ROOT || inode == BIG || inode == SMALL || is_small(inode) || is_written(inode);
}

static fuse_ino_t find(fuse_ino_t parent, const char *name) {
    if (parent == SMALL) {
        char *end;
        unsigned long number = name[0] == 'f' ? strtoul(name + 1, &end, 10) : SMALL_COUNT;
        return number < SMALL_COUNT && end == name + 6 && !*end ? FIRST_SMALL + number : 0;
    }
    if (parent != ROOT) return 0;
    if (!strcmp(name, "big")) return BIG;
    if (!strcmp(name, "small")) return SMALL;
    for (unsigned long number = 0; number < atomic_load(&written_count); number++)
        if (!strcmp(name, written[number].name)) return FIRST_WRITTEN + number;
    return 0;
}

static void do_lookup(fuse_req_t request, fuse_ino_t parent, const char *name) {
    struct fuse_entry_param found;
    fuse_ino_t inode = find(parent, name);
    if (!inode) {
        fuse_reply_err(request, ENOENT);
        return;
    }
    entry(inode, &found);
    fuse_reply_entry(request, &found);
}

static void do_getattr(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *info) {
    struct stat found;
    (void)info;
    if (!exists(inode)) {
        fuse_reply_err(request, ESTALE);
        return;
    }
    attributes(inode, &found);
    fuse_reply_attr(request, &found, timeout_of(inode));
}

static void do_setattr(fuse_req_t request, fuse_ino_t inode, struct stat *wanted, int fields,
                       struct fuse_file_info *info) {
    if (!is_written(inode)) {
        fuse_reply_err(request, EPERM);
        return;
    }
    if (fields & FUSE_SET_ATTR_SIZE) atomic_store(&written[inode - FIRST_WRITTEN].size, wanted->st_size);
    do_getattr(request, inode, info);
}

static void do_open(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *info) {
    info->fh = inode;
    info->noflush = (info->flags & O_ACCMODE) == O_RDONLY;
    fuse_reply_open(request, info);
}

static void do_read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, struct fuse_file_info *info) {
    (void)info;
    size_t file_size = inode == BIG ? BIG_SIZE : is_small(inode) ? SMALL_SIZE : 0;
    if ((size_t)offset >= file_size) {
        fuse_reply_buf(request, NULL, 0);
        return;
    }
    if (size > file_size - offset) size = file_size - offset;
    size_t start = inode == BIG ? offset % SPAN : page_of_small(inode - FIRST_SMALL, 0) * PAGE + offset;
    if (start + size <= SPAN) {
        fuse_reply_buf(request, span + start, size);
        return;
    }
    struct iovec parts[2] = {{span + start, SPAN - start}, {span, size - (SPAN - start)}};
    fuse_reply_iov(request, parts, 2);
}

static void list(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, int plus) {
    char *page = malloc(size), *end = page;
    char name[32];
    struct fuse_entry_param found;
    size_t left = size;
    off_t count = DIRECTORY_ENTRIES_START + (inode == ROOT ? 2 : (off_t)SMALL_COUNT);
    if (!page) {
        fuse_reply_err(request, ENOMEM);
        return;
    }
    for (off_t position = offset; position < count; position++) {
        if (position < DIRECTORY_ENTRIES_START) {
            memset(&found, 0, sizeof found); /* inode 0: not counted by the kernel as looked up */
            found.attr.st_ino = inode;
            found.attr.st_mode = S_IFDIR;
            strcpy(name, position ? ".." : ".");
        } else if (inode == ROOT) {
            entry(position == DIRECTORY_ENTRIES_START ? BIG : SMALL, &found);
            strcpy(name, position == DIRECTORY_ENTRIES_START ? "big" : "small");
        } else {
            entry(FIRST_SMALL + position - DIRECTORY_ENTRIES_START, &found);
            snprintf(name, sizeof name, "f%05ld", (long)(position - DIRECTORY_ENTRIES_START));
        }
        size_t length = plus ? fuse_add_direntry_plus(request, end, left, name, &found, position + 1)
                             : fuse_add_direntry(request, end, left, name, &found.attr, position + 1);
        if (length > left) break;
        end += length;
        left -= length;
    }
    fuse_reply_buf(request, page, size - left);
    free(page);
}

static void do_readdir(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, struct fuse_file_info *info) {
    (void)info;
    list(request, inode, size, offset, 0);
}

static void do_readdirplus(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
                           struct fuse_file_info *info) {
    (void)info;
    list(request, inode, size, offset, 1);
}

static void do_create(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode,
                      struct fuse_file_info *info) {
    struct fuse_entry_param found;
    unsigned long number = atomic_load(&written_count);
    (void)mode;
    if (parent != ROOT || number == MOST_WRITTEN || strlen(name) >= sizeof written[0].name) {
        fuse_reply_err(request, ENOSPC);
        return;
    }
    /* the kernel holds the directory's lock: one create at a time */
    strcpy(written[number].name, name);
    atomic_store(&written[number].size, 0);
    atomic_store(&written_count, number + 1);
    entry(FIRST_WRITTEN + number, &found);
    info->fh = found.ino;
    fuse_reply_create(request, &found, info);
}

static void do_write(fuse_req_t request, fuse_ino_t inode, const char *data, size_t size, off_t offset,
                     struct fuse_file_info *info) {
    (void)info;
    if (!is_written(inode) || size > LARGEST_WRITE) {
        fuse_reply_err(request, EBADF);
        return;
    }
    memcpy(ring + offset % RING, data, size);
    atomic_ulong *known = &written[inode - FIRST_WRITTEN].size;
    if ((unsigned long)offset + size > atomic_load(known)) atomic_store(known, offset + size);
    fuse_reply_write(request, size);
}

static void do_close(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *info) {
    (void)inode;
    (void)info;
    fuse_reply_err(request, 0);
}

static void do_init(void *user, struct fuse_conn_info *connection) {
    (void)user;
    connection->max_background = 64;
    connection->congestion_threshold = 48;
}

static const struct fuse_lowlevel_ops operations = {
    .init = do_init,
    .lookup = do_lookup,
    .getattr = do_getattr,
    .setattr = do_setattr,
    .open = do_open,
    .create = do_create,
    .read = do_read,
    .write = do_write,
    .flush = do_close,
    .release = do_close,
    .readdir = do_readdir,
    .readdirplus = do_readdirplus,
};

static void make_span(void) {
    if (posix_memalign((void **)&span, HUGE_PAGE, SPAN) || posix_memalign((void **)&ring, PAGE, RING + LARGEST_WRITE))
        exit(3);
    madvise(span, SPAN, MADV_HUGEPAGE);
    memset(ring, 0, RING + LARGEST_WRITE);
    for (uint64_t page = 0; page < SPAN_PAGES; page++) {
        memset(span + page * PAGE, (int)(page % 251), PAGE);
        memcpy(span + page * PAGE, &page, sizeof page);
    }
}

int main(int count, char **words) {
    if (count != 4) {
        fprintf(stderr, "usage: reference DESCRIPTOR THREADS CLONES\n");
        return 2;
    }
    char device[32];
    int threads = atoi(words[2]), clones = atoi(words[3]);
    snprintf(device, sizeof device, "/dev/fd/%s", words[1]);
    make_span();
    struct fuse_args arguments = FUSE_ARGS_INIT(1, words);
    struct fuse_session *session = fuse_session_new(&arguments, &operations, sizeof operations, NULL);
    if (!session || fuse_session_mount(session, device)) return 1;
    printf("ready\n");
    fflush(stdout);
    int result;
    if (threads) {
        struct fuse_loop_config *loop = fuse_loop_cfg_create();
        fuse_loop_cfg_set_clone_fd(loop, clones);
        fuse_loop_cfg_set_max_threads(loop, threads);
        result = fuse_session_loop_mt(session, loop);
        fuse_loop_cfg_destroy(loop);
    } else {
        result = fuse_session_loop(session);
    }
    fuse_session_destroy(session);
    return result ? 1 : 0;
}
