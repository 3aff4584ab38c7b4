/* A limit for mounts: one flat directory that already lies in memory, served by libfuse's low-level loop in plain C.
 *
 * No protocol, no connection, no check: what FUSE and the kernel allow on this machine to whoever has the bytes at hand.
 * Read-only; names and sizes are taken once at start. Prints nothing, serves until it is unmounted.
 *
 *   memory_fs SOURCE TARGET [THREADS]
 */
#define FUSE_USE_VERSION 312
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIRST 2 /* inode of the first file; 1 is the directory */
#define TIMEOUT 60.0
#define READ_AHEAD (1U << 20)

struct file {
    char *name;
    size_t size;
    char *bytes;
};

static struct file *files;
static size_t file_count;

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct file *)a)->name, ((const struct file *)b)->name);
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void load(const char *source) {
    DIR *directory = opendir(source);
    size_t room = 0;
    if (!directory)
        die(source);
    for (struct dirent *entry; (entry = readdir(directory));) {
        struct stat found;
        int descriptor;
        if (entry->d_name[0] == '.')
            continue;
        if (file_count == room)
            files = realloc(files, (room = room ? room * 2 : 1024) * sizeof *files);
        descriptor = openat(dirfd(directory), entry->d_name, O_RDONLY);
        if (descriptor < 0 || fstat(descriptor, &found))
            die(entry->d_name);
        struct file *file = &files[file_count++];
        file->name = strdup(entry->d_name);
        file->size = (size_t)found.st_size;
        file->bytes = mmap(0, file->size ? file->size : 1, PROT_READ, MAP_SHARED, descriptor, 0);
        if (file->bytes == MAP_FAILED)
            die(entry->d_name);
        close(descriptor);
    }
    closedir(directory);
    qsort(files, file_count, sizeof *files, by_name);
}

static void attributes(fuse_ino_t inode, struct stat *out) {
    memset(out, 0, sizeof *out);
    out->st_ino = inode;
    out->st_nlink = 1;
    out->st_mode = inode == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0644;
    out->st_size = inode == FUSE_ROOT_ID ? 0 : (off_t)files[inode - FIRST].size;
    out->st_blocks = (out->st_size + 511) / 512;
}

static void entry_of(fuse_ino_t inode, struct fuse_entry_param *entry) {
    memset(entry, 0, sizeof *entry);
    entry->ino = inode;
    entry->attr_timeout = entry->entry_timeout = TIMEOUT;
    attributes(inode, &entry->attr);
}

static void do_init(void *data, struct fuse_conn_info *connection) {
    (void)data;
    connection->max_readahead = READ_AHEAD;
}

static void do_lookup(fuse_req_t request, fuse_ino_t parent, const char *name) {
    struct file wanted = {.name = (char *)name}, *found;
    struct fuse_entry_param entry;
    found = parent == FUSE_ROOT_ID ? bsearch(&wanted, files, file_count, sizeof *files, by_name) : 0;
    if (!found) {
        fuse_reply_err(request, ENOENT);
        return;
    }
    entry_of((fuse_ino_t)(found - files) + FIRST, &entry);
    fuse_reply_entry(request, &entry);
}

static void do_getattr(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *info) {
    struct stat found;
    (void)info;
    attributes(inode, &found);
    fuse_reply_attr(request, &found, TIMEOUT);
}

static void do_open(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *info) {
    (void)inode;
    info->keep_cache = 1;
    fuse_reply_open(request, info);
}

static void do_read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, struct fuse_file_info *info) {
    const struct file *file = &files[inode - FIRST];
    size_t start = (size_t)offset < file->size ? (size_t)offset : file->size;
    (void)info;
    fuse_reply_buf(request, file->bytes + start, size < file->size - start ? size : file->size - start);
}

static void do_readdirplus(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, struct fuse_file_info *info) {
    char *buffer = malloc(size);
    size_t used = 0;
    (void)inode;
    (void)info;
    for (size_t index = (size_t)offset; index < file_count; index++) {
        struct fuse_entry_param entry;
        entry_of(index + FIRST, &entry);
        size_t length = fuse_add_direntry_plus(request, buffer + used, size - used, files[index].name, &entry,
                                               (off_t)index + 1);
        if (length > size - used)
            break;
        used += length;
    }
    fuse_reply_buf(request, buffer, used);
    free(buffer);
}

int main(int count, char **vector) {
    static const struct fuse_lowlevel_ops operations = {
        .init = do_init,
        .lookup = do_lookup,
        .getattr = do_getattr,
        .open = do_open,
        .read = do_read,
        .readdirplus = do_readdirplus,
    };
    if (count < 3) {
        fprintf(stderr, "usage: memory_fs SOURCE TARGET [THREADS]\n");
        return 2;
    }
    load(vector[1]);
    char *options[] = {vector[0], "-o", "fsname=memory_fs,allow_other,ro"};
    struct fuse_args arguments = FUSE_ARGS_INIT(3, options);
    struct fuse_session *session = fuse_session_new(&arguments, &operations, sizeof operations, 0);
    if (!session || fuse_session_mount(session, vector[2]))
        return 1;
    fuse_set_signal_handlers(session);
    struct fuse_loop_config *loop = fuse_loop_cfg_create();
    fuse_loop_cfg_set_clone_fd(loop, 1);
    fuse_loop_cfg_set_max_threads(loop, count > 3 ? (unsigned)atoi(vector[3]) : 4);
    int failed = fuse_session_loop_mt(session, loop);
    fuse_session_unmount(session);
    fuse_session_destroy(session);
    return failed ? 1 : 0;
}
