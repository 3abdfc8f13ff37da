/* Simulates a full or slow disk below one directory, and a wrong system clock. Preloaded into the gateway or
 * PostgreSQL.
 *
 * A full disk is of one of three kinds. On the first, no file can grow: existing bytes can be overwritten,
 * and a write that crosses the end of its file is cut there, as on ext4 and xfs. On the second, overwriting
 * fails as well, as on btrfs and ZFS. On a third one, only journal.marker cannot be written. A slow disk
 * delays each sync. On a disk that blocks, no write ends.
 *
 * TEST_DISK_DIRECTORY  the directory
 * TEST_DISK_CONTROL    a file of two 32-bit numbers and a 64-bit number: the kind of full disk (0 if not
 *                      full, 4 if it blocks), the delay of a sync in milliseconds, and the seconds by which the wall clock
 *                      is ahead
 * TEST_CLOCK_OFFSET    seconds by which the wall clock is ahead, without a control file
 * TEST_DISK_KILL_AT    the number of the call that kills the process, counted from 1: calls that change a file below the
 *                      directory, or sync one
 * TEST_DISK_FULL_AT    the number of the call from which on no file can grow
 *
 * Monotonic clocks are never changed. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {
  volatile uint32_t full;
  volatile uint32_t sync_ms;
  volatile int64_t clock_ahead;
};

static struct control *control;
static int64_t clock_offset;
static char directory[4096];
static size_t directory_length;
static atomic_long calls;
static long kill_at, full_at;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pwritev)(int, const struct iovec *, int, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fallocate)(int, int, off_t, off_t);
static int (*real_posix_fallocate)(int, off_t, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
  real_write = dlsym(RTLD_NEXT, "write");
  real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
  real_pwritev = dlsym(RTLD_NEXT, "pwritev64");
  real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
  real_fallocate = dlsym(RTLD_NEXT, "fallocate64");
  real_posix_fallocate = dlsym(RTLD_NEXT, "posix_fallocate64");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
  real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  real_rename = dlsym(RTLD_NEXT, "rename");
  real_unlink = dlsym(RTLD_NEXT, "unlink");
  real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  const char *number = getenv("TEST_DISK_KILL_AT");
  if (number) kill_at = atol(number);
  number = getenv("TEST_DISK_FULL_AT");
  if (number) full_at = atol(number);
  const char *seconds = getenv("TEST_CLOCK_OFFSET");
  if (seconds) clock_offset = atoll(seconds);
  const char *path = getenv("TEST_DISK_CONTROL");
  const char *below = getenv("TEST_DISK_DIRECTORY");
  if (!path || !below || !realpath(below, directory)) return;
  directory_length = strlen(directory);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  void *mapped = mmap(NULL, sizeof(struct control), PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  if (mapped != MAP_FAILED) control = mapped;
}

static ssize_t path_of(int fd, char *path, size_t size) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  return readlink(link, path, size);
}

static int is_marker(int fd) {
  static const char name[] = "/journal.marker";
  const size_t name_length = sizeof name - 1;
  char path[4096];
  ssize_t length = path_of(fd, path, sizeof path);
  return length > (ssize_t)name_length && !memcmp(path + length - name_length, name, name_length);
}

static int is_below(const char *path, ssize_t length) {
  return length > (ssize_t)directory_length && !memcmp(path, directory, directory_length) &&
         path[directory_length] == '/';
}

/* Returns true for a file below the directory. */
static int is_in_directory(int fd) {
  char path[4096];
  return is_below(path, path_of(fd, path, sizeof path));
}

/* Counts a call on a file below the directory. */
static void count_call(void) {
  long number = atomic_fetch_add(&calls, 1) + 1;
  if (number == kill_at) raise(SIGKILL);
}

static void count_call_on(int fd) {
  if ((kill_at || full_at) && is_in_directory(fd)) count_call();
}

static int full_kind(void) {
  if (full_at && atomic_load(&calls) >= full_at) return 1;
  return control ? control->full : 0;
}

/* Returns the number of bytes that can be written: all of them unless the disk is full. */
static size_t writable(int fd, size_t count, off_t offset) {
  struct stat status;
  count_call_on(fd);
  int full = full_kind();
  if (!full || !count || !is_in_directory(fd)) return count;
  if (fstat(fd, &status) || !S_ISREG(status.st_mode)) return count;
  while (full_kind() == 4) pause();
  if (full == 2) return 0;
  if (full == 3) return is_marker(fd) ? 0 : count;
  if (offset < 0) offset = fcntl(fd, F_GETFL) & O_APPEND ? status.st_size : lseek(fd, 0, SEEK_CUR);
  if (offset >= status.st_size) return 0;
  off_t left = status.st_size - offset;
  return (off_t)count > left ? (size_t)left : count;
}

static int may_grow(int fd, off_t length) {
  struct stat status;
  count_call_on(fd);
  int full = full_kind();
  if (!full || full >= 3 || !is_in_directory(fd)) return 1;
  return fstat(fd, &status) || length <= status.st_size;
}

static void delay_sync(int fd) {
  count_call_on(fd);
  if (!control || !control->sync_ms || !is_in_directory(fd)) return;
  struct timespec time = {control->sync_ms / 1000, (control->sync_ms % 1000) * 1000000L};
  nanosleep(&time, NULL);
}

ssize_t write(int fd, const void *data, size_t count) {
  size_t some = writable(fd, count, -1);
  if (some || !count) return real_write(fd, data, some);
  errno = ENOSPC;
  return -1;
}

ssize_t pwrite64(int fd, const void *data, size_t count, off_t offset) {
  size_t some = writable(fd, count, offset);
  if (some || !count) return real_pwrite(fd, data, some, offset);
  errno = ENOSPC;
  return -1;
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) {
  return pwrite64(fd, data, count, offset);
}

/* On a full disk, writes all or nothing. */
ssize_t pwritev64(int fd, const struct iovec *data, int buffers, off_t offset) {
  size_t count = 0;
  for (int i = 0; i < buffers; i++) count += data[i].iov_len;
  if (writable(fd, count, offset) == count) return real_pwritev(fd, data, buffers, offset);
  errno = ENOSPC;
  return -1;
}

ssize_t pwritev(int fd, const struct iovec *data, int buffers, off_t offset) {
  return pwritev64(fd, data, buffers, offset);
}

int ftruncate64(int fd, off_t length) {
  if (may_grow(fd, length)) return real_ftruncate(fd, length);
  errno = ENOSPC;
  return -1;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int fallocate64(int fd, int mode, off_t offset, off_t length) {
  if (may_grow(fd, offset + length)) return real_fallocate(fd, mode, offset, length);
  errno = ENOSPC;
  return -1;
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
  return fallocate64(fd, mode, offset, length);
}

int posix_fallocate64(int fd, off_t offset, off_t length) {
  return may_grow(fd, offset + length) ? real_posix_fallocate(fd, offset, length) : ENOSPC;
}

int posix_fallocate(int fd, off_t offset, off_t length) {
  return posix_fallocate64(fd, offset, length);
}

int fsync(int fd) {
  delay_sync(fd);
  return real_fsync(fd);
}

int fdatasync(int fd) {
  delay_sync(fd);
  return real_fdatasync(fd);
}

int rename(const char *from, const char *to) {
  if ((kill_at || full_at) && is_below(to, strlen(to))) count_call();
  return real_rename(from, to);
}

int unlink(const char *path) {
  if ((kill_at || full_at) && is_below(path, strlen(path))) count_call();
  return real_unlink(path);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  if (!real_clock_gettime) real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  int status = real_clock_gettime(clock, now);
  if (!status && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    now->tv_sec += clock_offset + (control ? control->clock_ahead : 0);
  return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec exact;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *into) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (into) *into = exact.tv_sec;
  return exact.tv_sec;
}
