/* A disk that is full or slow whenever a test says so, below one directory; and a wrong system clock.
 *
 * Preloaded into the gateway. A full disk is one on which no file can grow: what is there can be
 * overwritten, and a write that crosses the end of its file is cut there, as ext4 and xfs do it; or
 * one on which overwriting needs room as well, as btrfs and ZFS do it. A slow one takes its time for
 * each sync.
 *
 * TSGW_DISK_DIRECTORY names the directory, TSGW_DISK_CONTROL a file of two 32-bit numbers and a 64-bit
 * one: whether it is full (1, or 2 for the second sort), how many milliseconds a sync takes, and by how
 * many seconds CLOCK_REALTIME is ahead. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct control {
  volatile uint32_t full;
  volatile uint32_t sync_ms;
  volatile int64_t clock_ahead;
};

static struct control *control;
static char directory[4096];
static size_t directory_length;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fallocate)(int, int, off_t, off_t);
static int (*real_posix_fallocate)(int, off_t, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
  real_write = dlsym(RTLD_NEXT, "write");
  real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
  real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
  real_fallocate = dlsym(RTLD_NEXT, "fallocate64");
  real_posix_fallocate = dlsym(RTLD_NEXT, "posix_fallocate64");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
  real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  const char *path = getenv("TSGW_DISK_CONTROL");
  const char *of = getenv("TSGW_DISK_DIRECTORY");
  if (!path || !of || !realpath(of, directory)) return;
  directory_length = strlen(directory);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  void *mapped = mmap(NULL, sizeof(struct control), PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  if (mapped != MAP_FAILED) control = mapped;
}

/* Whether it is a file in the directory. */
static int is_ours(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  return length > (ssize_t)directory_length && !memcmp(path, directory, directory_length) &&
         path[directory_length] == '/';
}

/* How much of a write fits into the file as it is; all of it unless the disk is full. */
static size_t fits(int fd, size_t count, off_t offset) {
  struct stat status;
  if (!control || !control->full || !count || !is_ours(fd)) return count;
  if (fstat(fd, &status) || !S_ISREG(status.st_mode)) return count;
  if (control->full == 2) return 0;
  if (offset < 0) offset = lseek(fd, 0, SEEK_CUR);
  if (offset >= status.st_size) return 0;
  off_t room = status.st_size - offset;
  return (off_t)count > room ? (size_t)room : count;
}

static int may_grow(int fd, off_t length) {
  struct stat status;
  if (!control || !control->full || !is_ours(fd)) return 1;
  return fstat(fd, &status) || length <= status.st_size;
}

static void wait_for(int fd) {
  if (!control || !control->sync_ms || !is_ours(fd)) return;
  struct timespec time = {control->sync_ms / 1000, (control->sync_ms % 1000) * 1000000L};
  nanosleep(&time, NULL);
}

ssize_t write(int fd, const void *data, size_t count) {
  size_t some = fits(fd, count, -1);
  if (some || !count) return real_write(fd, data, some);
  errno = ENOSPC;
  return -1;
}

ssize_t pwrite64(int fd, const void *data, size_t count, off_t offset) {
  size_t some = fits(fd, count, offset);
  if (some || !count) return real_pwrite(fd, data, some, offset);
  errno = ENOSPC;
  return -1;
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) {
  return pwrite64(fd, data, count, offset);
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
  wait_for(fd);
  return real_fsync(fd);
}

int fdatasync(int fd) {
  wait_for(fd);
  return real_fdatasync(fd);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  if (!real_clock_gettime) real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  int done = real_clock_gettime(clock, time);
  if (!done && control && clock == CLOCK_REALTIME) time->tv_sec += control->clock_ahead;
  return done;
}
