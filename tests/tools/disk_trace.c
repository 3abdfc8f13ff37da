/*
 * Records everything that a process does to the files below one directory, in order. A library for
 * LD_PRELOAD; tests/it/power_loss reconstructs disks from the record.
 *
 *   TEST_TRACE_ROOT    the directory, without symbolic links
 *   TEST_TRACE_LOG     path of the record, outside of the directory
 *   TEST_CLOCK_OFFSET  seconds by which the wall clock is ahead
 *   TEST_KILL_AT_SYNC  suffix and number, such as "-wal 3": kills the process before the third sync of
 *                      written data of a file with this suffix
 *
 * The record has one line for each operation:
 *
 *   O <ino> <path>            a file was created
 *   W <ino> <offset> <bytes>  a write; the bytes follow
 *   T <ino> <bytes>           a file was truncated or extended to this length
 *   A <ino> <bytes>           a file was allocated up to this length
 *   M <path>                  a directory was created
 *   N <from>\t<to>            a file was renamed
 *   U <path>                  a file was removed
 *   B <number> F <ino>        a sync of a file begins
 *   B <number> D <path>       a sync of a directory begins
 *   E <number>                the sync has succeeded
 *   X <operation>             an operation that the record does not support
 *
 * An operation and its line are atomic for other threads, so the lines have the order of the operations.
 * A sync has two lines, because a write between them is not necessarily part of it. The line of a write is
 * stored after the write and before its return: an observer of its effect finds the line.
 *
 * Files with the suffix -shm are SQLite's shared memory. They have no meaning after a power loss and are
 * not recorded.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MAX_FDS 65536
#define MAX_PATH 1024

struct entry {
    char kind; /* 'F' or 'D'; 0 if not recorded */
    char dirty; /* written since its last sync */
    ino_t ino;
    char *path; /* relative to the root */
};

static struct entry table[MAX_FDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[MAX_PATH];
static size_t root_length;
static int log_fd = -1;
static long next_sync = 1;
static long clock_offset;
static char kill_suffix[64];
static long kill_at;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void start(void) {
    const char *directory = getenv("TEST_TRACE_ROOT");
    const char *log = getenv("TEST_TRACE_LOG");
    const char *offset = getenv("TEST_CLOCK_OFFSET");
    const char *kill_at_sync = getenv("TEST_KILL_AT_SYNC");
    if (offset) clock_offset = atol(offset);
    if (kill_at_sync && sscanf(kill_at_sync, "%63s %ld", kill_suffix, &kill_at) != 2) abort();
    if (!directory || !log || strlen(directory) >= sizeof root) abort();
    strcpy(root, directory);
    root_length = strlen(root);
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, log,
                          O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0) abort();
}

/* Aborts rather than store an incomplete record. */
static void put(const char *line, size_t length, const void *data, size_t bytes) {
    struct iovec parts[3] = {
        {(void *)line, length}, {(void *)data, bytes}, {"\n", 1}};
    size_t whole = length + bytes + 1;
    if (syscall(SYS_writev, log_fd, parts, 3) != (long)whole) abort();
}

__attribute__((format(printf, 1, 2))) static void record(const char *format, ...) {
    char line[2 * MAX_PATH + 64];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof line) abort();
    put(line, (size_t)length, "", 0);
}

/* Returns the path relative to the root, or NULL if it is not recorded. */
static const char *below(const char *path) {
    if (!path || log_fd < 0 || strncmp(path, root, root_length) != 0) return NULL;
    const char *rest = path + root_length;
    if (*rest != 0 && *rest != '/') return NULL;
    while (*rest == '/') rest++;
    size_t length = strlen(rest);
    if (length >= 4 && strcmp(rest + length - 4, "-shm") == 0) return NULL;
    return rest;
}

static struct entry *traced(int fd) {
    if (fd < 0 || fd >= MAX_FDS || !table[fd].kind) return NULL;
    return &table[fd];
}

static void record_unsupported(int fd, const char *operation) {
    struct entry *entry = traced(fd);
    if (!entry) return;
    int before = errno;
    pthread_mutex_lock(&lock);
    record("X %s of %s", operation, entry->path);
    pthread_mutex_unlock(&lock);
    errno = before;
}

/* --- Opening ---------------------------------------------------------- */

static int open_at(int dir, const char *path, int flags, mode_t mode) {
    const char *rest = dir == AT_FDCWD || (path && *path == '/') ? below(path) : NULL;
    if (!rest) return (int)syscall(SYS_openat, dir, path, flags, mode);
    struct stat before, after;
    pthread_mutex_lock(&lock);
    int was_there = stat(path, &before) == 0;
    errno = 0;
    int fd = (int)syscall(SYS_openat, dir, path, flags, mode);
    int error = errno;
    if (fd >= 0) {
        if (fd >= MAX_FDS || fstat(fd, &after) != 0) abort();
        free(table[fd].path);
        table[fd].path = strdup(rest);
        table[fd].ino = after.st_ino;
        table[fd].dirty = 0;
        table[fd].kind = S_ISDIR(after.st_mode) ? 'D' : 'F';
        int is_file = S_ISREG(after.st_mode);
        if (!was_there && is_file)
            record("O %lu %s", (unsigned long)after.st_ino, rest);
        else if (is_file && (flags & O_TRUNC) && before.st_size > 0)
            record("T %lu 0", (unsigned long)after.st_ino);
        if (is_file && (flags & (O_DSYNC | O_APPEND)))
            record("X flags %x of %s", (unsigned)flags, rest);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define OPEN(name, dir, ...) \
    int name(__VA_ARGS__, int flags, ...) { \
        va_list arguments; \
        va_start(arguments, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0; \
        va_end(arguments); \
        return open_at(dir, path, flags, mode); \
    }
OPEN(open, AT_FDCWD, const char *path)
OPEN(open64, AT_FDCWD, const char *path)
OPEN(openat, dir, int dir, const char *path)
OPEN(openat64, dir, int dir, const char *path)
int creat(const char *path, mode_t mode) {
    return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int close(int fd) {
    REAL(close);
    if (traced(fd)) {
        pthread_mutex_lock(&lock);
        table[fd].kind = 0;
        pthread_mutex_unlock(&lock);
    }
    return real(fd);
}

/* --- Writing ---------------------------------------------------------- */

static ssize_t write_at(int fd, const void *data, size_t count, off_t offset, int has_offset) {
    struct entry *entry = traced(fd);
    if (!entry || entry->kind != 'F') {
        return has_offset ? syscall(SYS_pwrite64, fd, data, count, offset)
                          : syscall(SYS_write, fd, data, count);
    }
    char line[96];
    pthread_mutex_lock(&lock);
    if (!has_offset) offset = lseek(fd, 0, SEEK_CUR);
    ssize_t done = has_offset ? syscall(SYS_pwrite64, fd, data, count, offset)
                              : syscall(SYS_write, fd, data, count);
    int error = errno;
    if (done > 0) {
        int length = snprintf(line, sizeof line, "W %lu %ld %zd\n",
                              (unsigned long)entry->ino, (long)offset, done);
        put(line, (size_t)length, data, (size_t)done);
        entry->dirty = 1;
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

ssize_t write(int fd, const void *data, size_t count) { return write_at(fd, data, count, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) {
    return write_at(fd, data, count, offset, 1);
}
ssize_t pwrite64(int fd, const void *data, size_t count, off_t offset) {
    return write_at(fd, data, count, offset, 1);
}

static int truncate_to(int fd, off_t length) {
    struct entry *entry = traced(fd);
    if (!entry) return (int)syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_ftruncate, fd, length);
    int error = errno;
    if (done == 0) record("T %lu %ld", (unsigned long)entry->ino, (long)length);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}
int ftruncate(int fd, off_t length) { return truncate_to(fd, length); }
int ftruncate64(int fd, off_t length) { return truncate_to(fd, length); }

static int allocate(int fd, int mode, off_t offset, off_t length) {
    struct entry *entry = traced(fd);
    if (!entry) return (int)syscall(SYS_fallocate, fd, mode, offset, length);
    if (mode != 0) record_unsupported(fd, "fallocate");
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_fallocate, fd, mode, offset, length);
    int error = errno;
    if (done == 0) record("A %lu %ld", (unsigned long)entry->ino, (long)(offset + length));
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}
int fallocate(int fd, int mode, off_t offset, off_t length) {
    return allocate(fd, mode, offset, length);
}
int fallocate64(int fd, int mode, off_t offset, off_t length) {
    return allocate(fd, mode, offset, length);
}
int posix_fallocate(int fd, off_t offset, off_t length) {
    return allocate(fd, 0, offset, length) == 0 ? 0 : errno;
}
int posix_fallocate64(int fd, off_t offset, off_t length) {
    return posix_fallocate(fd, offset, length);
}

/* --- Syncing ---------------------------------------------------------- */

static void kill_if_due(struct entry *entry) {
    int was_dirty = entry->dirty;
    entry->dirty = 0;
    if (!was_dirty) return;
    size_t length = strlen(entry->path), suffix = strlen(kill_suffix);
    if (kill_at <= 0 || length < suffix) return;
    if (strcmp(entry->path + length - suffix, kill_suffix) != 0) return;
    if (--kill_at == 0) {
        raise(SIGKILL);
        for (;;) pause();
    }
}

static int sync_by(long call, int fd) {
    struct entry *entry = traced(fd);
    if (!entry) return (int)syscall(call, fd);
    pthread_mutex_lock(&lock);
    kill_if_due(entry);
    long number = next_sync++;
    if (entry->kind == 'D')
        record("B %ld D %s", number, entry->path);
    else
        record("B %ld F %lu", number, (unsigned long)entry->ino);
    pthread_mutex_unlock(&lock);
    int done = (int)syscall(call, fd);
    int error = errno;
    if (done == 0) {
        pthread_mutex_lock(&lock);
        record("E %ld", number);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return done;
}
int fsync(int fd) { return sync_by(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_by(SYS_fdatasync, fd); }
/* sync_file_range, sync and syncfs guarantee nothing and are not recorded. */

/* --- Directories ------------------------------------------------------ */

int mkdir(const char *path, mode_t mode) {
    const char *rest = below(path);
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    int error = errno;
    if (rest && done == 0) record("M %s", rest);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

static int remove_by(int flags, const char *path) {
    const char *rest = below(path);
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_unlinkat, AT_FDCWD, path, flags);
    int error = errno;
    if (rest && done == 0) record("U %s", rest);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}
int unlink(const char *path) { return remove_by(0, path); }
int rmdir(const char *path) { return remove_by(AT_REMOVEDIR, path); }

int rename(const char *from, const char *to) {
    const char *old = below(from), *new = below(to);
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
    int error = errno;
    if (done == 0 && old && new) record("N %s\t%s", old, new);
    if (done == 0 && !old != !new) record("X rename across the root");
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

/* --- Unsupported operations ------------------------------------------- */

ssize_t writev(int fd, const struct iovec *parts, int count) {
    record_unsupported(fd, "writev");
    return syscall(SYS_writev, fd, parts, count);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    REAL(pwritev);
    record_unsupported(fd, "pwritev");
    return real(fd, parts, count, offset);
}
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t count, unsigned flags) {
    record_unsupported(out, "copy_file_range");
    return syscall(SYS_copy_file_range, in, from, out, to, count, flags);
}
int link(const char *from, const char *to) {
    int done = (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
    int error = errno;
    if (below(to)) {
        pthread_mutex_lock(&lock);
        record("X link to %s", below(to));
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return done;
}
static void *map(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    if ((protection & PROT_WRITE) && (flags & MAP_SHARED)) record_unsupported(fd, "mmap for writing");
    return (void *)syscall(SYS_mmap, at, length, protection, flags, fd, offset);
}
void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    return map(at, length, protection, flags, fd, offset);
}
void *mmap64(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    return map(at, length, protection, flags, fd, offset);
}

/* --- Time ------------------------------------------------------------- */

int clock_gettime(clockid_t clock, struct timespec *time) {
    REAL(clock_gettime);
    int done = real(clock, time);
    if (done == 0 && clock == CLOCK_REALTIME) time->tv_sec += clock_offset;
    return done;
}
