/*
 * Records what a process does to the files below one directory, in order: a
 * library to be preloaded. tests/it/power rebuilds disks from the record.
 *
 *   DISK_TRACE_ROOT         the directory; no symbolic links in it
 *   DISK_TRACE_LOG          where the record goes; outside of the directory
 *   DISK_TRACE_CLOCK_AHEAD  seconds by which the wall clock is ahead
 *   DISK_TRACE_DIE_AT_SYNC  text and number, as in "-wal 3": the process is
 *                           killed when it is about to sync what it wrote to a
 *                           file whose name ends so, for that many'th time
 *
 * The record, each with a line feed behind it:
 *
 *   O <ino> <path>            a file was created
 *   W <ino> <offset> <bytes>  written; then the bytes
 *   T <ino> <bytes>           cut, or made longer, to this many
 *   A <ino> <bytes>           made at least so long
 *   M <path>                  a directory was made
 *   N <from>\t<to>            renamed
 *   U <path>                  removed
 *   B <number> F <ino>        a sync of a file begins
 *   B <number> D <path>       a sync of a directory begins
 *   E <number>                it has ended, and well
 *   X <what>                  something that this cannot record
 *
 * A write and its line are one step for the others: a line that comes later
 * was done later. A sync has two lines, since what is written while it goes on
 * need not be part of it. The line of a write is behind the write and before
 * its return: who hears that something was done finds its line there.
 *
 * SQLite's -shm is memory that processes share and means nothing after a power
 * loss: it is left out.
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
    char kind; /* 0: none of ours; 'F' or 'D' */
    char dirty; /* written to since its last sync */
    ino_t ino;
    char *path; /* from the root on */
};

static struct entry table[MAX_FDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[MAX_PATH];
static size_t root_length;
static int log_fd = -1;
static long next_sync = 1;
static long clock_ahead;
static char die_suffix[64];
static long die_at;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void start(void) {
    const char *where = getenv("DISK_TRACE_ROOT");
    const char *log = getenv("DISK_TRACE_LOG");
    const char *ahead = getenv("DISK_TRACE_CLOCK_AHEAD");
    const char *die = getenv("DISK_TRACE_DIE_AT_SYNC");
    if (ahead) clock_ahead = atol(ahead);
    if (die && sscanf(die, "%63s %ld", die_suffix, &die_at) != 2) abort();
    if (!where || !log || strlen(where) >= sizeof root) abort();
    strcpy(root, where);
    root_length = strlen(root);
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, log,
                          O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0) abort();
}

/* A record that is not whole would be worse than none. */
static void put(const char *line, size_t length, const void *data, size_t bytes) {
    struct iovec parts[3] = {
        {(void *)line, length}, {(void *)data, bytes}, {"\n", 1}};
    size_t whole = length + bytes + 1;
    if (syscall(SYS_writev, log_fd, parts, 3) != (long)whole) abort();
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
    char line[2 * MAX_PATH + 64];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof line) abort();
    put(line, (size_t)length, "", 0);
}

/* The path from the root on; NULL when it is not below it, or left out. */
static const char *below(const char *path) {
    if (!path || log_fd < 0 || strncmp(path, root, root_length) != 0) return NULL;
    const char *rest = path + root_length;
    if (*rest != 0 && *rest != '/') return NULL;
    while (*rest == '/') rest++;
    size_t length = strlen(rest);
    if (length >= 4 && strcmp(rest + length - 4, "-shm") == 0) return NULL;
    return rest;
}

static struct entry *ours(int fd) {
    if (fd < 0 || fd >= MAX_FDS || !table[fd].kind) return NULL;
    return &table[fd];
}

static void unable(int fd, const char *what) {
    struct entry *entry = ours(fd);
    if (!entry) return;
    int before = errno;
    pthread_mutex_lock(&lock);
    say("X %s of %s", what, entry->path);
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
            say("O %lu %s", (unsigned long)after.st_ino, rest);
        else if (is_file && (flags & O_TRUNC) && before.st_size > 0)
            say("T %lu 0", (unsigned long)after.st_ino);
        if (is_file && (flags & (O_DSYNC | O_APPEND)))
            say("X flags %x of %s", (unsigned)flags, rest);
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
    if (ours(fd)) {
        pthread_mutex_lock(&lock);
        table[fd].kind = 0;
        pthread_mutex_unlock(&lock);
    }
    return real(fd);
}

/* --- Writing ---------------------------------------------------------- */

static ssize_t write_at(int fd, const void *data, size_t count, off_t offset, int has_offset) {
    struct entry *entry = ours(fd);
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
    struct entry *entry = ours(fd);
    if (!entry) return (int)syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_ftruncate, fd, length);
    int error = errno;
    if (done == 0) say("T %lu %ld", (unsigned long)entry->ino, (long)length);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}
int ftruncate(int fd, off_t length) { return truncate_to(fd, length); }
int ftruncate64(int fd, off_t length) { return truncate_to(fd, length); }

static int allocate(int fd, int mode, off_t offset, off_t length) {
    struct entry *entry = ours(fd);
    if (!entry) return (int)syscall(SYS_fallocate, fd, mode, offset, length);
    if (mode != 0) unable(fd, "fallocate");
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_fallocate, fd, mode, offset, length);
    int error = errno;
    if (done == 0) say("A %lu %ld", (unsigned long)entry->ino, (long)(offset + length));
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

static void maybe_die(struct entry *entry) {
    int was_dirty = entry->dirty;
    entry->dirty = 0;
    if (!was_dirty) return;
    size_t length = strlen(entry->path), suffix = strlen(die_suffix);
    if (die_at <= 0 || length < suffix) return;
    if (strcmp(entry->path + length - suffix, die_suffix) != 0) return;
    if (--die_at == 0) {
        raise(SIGKILL);
        for (;;) pause();
    }
}

static int sync_by(long call, int fd) {
    struct entry *entry = ours(fd);
    if (!entry) return (int)syscall(call, fd);
    pthread_mutex_lock(&lock);
    maybe_die(entry);
    long number = next_sync++;
    if (entry->kind == 'D')
        say("B %ld D %s", number, entry->path);
    else
        say("B %ld F %lu", number, (unsigned long)entry->ino);
    pthread_mutex_unlock(&lock);
    int done = (int)syscall(call, fd);
    int error = errno;
    if (done == 0) {
        pthread_mutex_lock(&lock);
        say("E %ld", number);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return done;
}
int fsync(int fd) { return sync_by(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_by(SYS_fdatasync, fd); }
/* sync_file_range, sync and syncfs promise nothing here: they are not recorded. */

/* --- Directories ------------------------------------------------------ */

int mkdir(const char *path, mode_t mode) {
    const char *rest = below(path);
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    int error = errno;
    if (rest && done == 0) say("M %s", rest);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

static int remove_by(int flags, const char *path) {
    const char *rest = below(path);
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_unlinkat, AT_FDCWD, path, flags);
    int error = errno;
    if (rest && done == 0) say("U %s", rest);
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
    if (done == 0 && old && new) say("N %s\t%s", old, new);
    if (done == 0 && !old != !new) say("X rename across the root");
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

/* --- What is not recorded, and so must not happen ---------------------- */

ssize_t writev(int fd, const struct iovec *parts, int count) {
    unable(fd, "writev");
    return syscall(SYS_writev, fd, parts, count);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    REAL(pwritev);
    unable(fd, "pwritev");
    return real(fd, parts, count, offset);
}
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t count, unsigned flags) {
    unable(out, "copy_file_range");
    return syscall(SYS_copy_file_range, in, from, out, to, count, flags);
}
int link(const char *from, const char *to) {
    int done = (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
    int error = errno;
    if (below(to)) {
        pthread_mutex_lock(&lock);
        say("X link to %s", below(to));
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return done;
}
static void *map(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    if ((protection & PROT_WRITE) && (flags & MAP_SHARED)) unable(fd, "mmap for writing");
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
    if (done == 0 && clock == CLOCK_REALTIME) time->tv_sec += clock_ahead;
    return done;
}
