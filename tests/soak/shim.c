/* LD_PRELOAD: makes calls on files below SOAK_FOLDER fail or wait, and shifts the host's clock.
 *
 * SOAK_CONTROL names a file of four numbers (int64, the host's byte order):
 * errno of writing calls, milliseconds that a sync waits, seconds added to the real-time clock,
 * errno of syncing calls. Zero means: as ever. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

struct control { int64_t write_errno, sync_wait_ms, clock_s, sync_errno; };
static volatile struct control *told;
static const char *folder;

#define REAL(name) static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("SOAK_CONTROL");
  folder = getenv("SOAK_FOLDER");
  int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (fd < 0) return;
  void *map = mmap(NULL, sizeof(struct control), PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  if (map != MAP_FAILED) told = map;
}

static int below(const char *path) {
  return folder && path && strncmp(path, folder, strlen(folder)) == 0;
}

static int mine(int fd) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  return below(path);
}

static int refused(int fd) {
  if (!told || !told->write_errno || !mine(fd)) return 0;
  errno = (int)told->write_errno;
  return 1;
}

static int not_synced(int fd) {
  if (!told || !(told->sync_wait_ms || told->sync_errno) || !mine(fd)) return 0;
  if (told->sync_wait_ms) usleep((useconds_t)told->sync_wait_ms * 1000);
  if (!told->sync_errno) return 0;
  errno = (int)told->sync_errno;
  return 1;
}

ssize_t write(int fd, const void *data, size_t n) {
  REAL(write);
  return refused(fd) ? -1 : real(fd, data, n);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
  REAL(pwrite);
  return refused(fd) ? -1 : real(fd, data, n, at);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
  REAL(pwrite64);
  return refused(fd) ? -1 : real(fd, data, n, at);
}
int fsync(int fd) {
  REAL(fsync);
  return not_synced(fd) ? -1 : real(fd);
}
int fdatasync(int fd) {
  REAL(fdatasync);
  return not_synced(fd) ? -1 : real(fd);
}
int unlink(const char *path) {
  REAL(unlink);
  if (told && told->write_errno && below(path)) { errno = (int)told->write_errno; return -1; }
  return real(path);
}

static int opens(const char *path, int flags) {
  if (!told || !told->write_errno || !below(path)) return 0;
  if (!(flags & (O_WRONLY | O_RDWR | O_CREAT))) return 0;
  errno = (int)told->write_errno;
  return 1;
}
int open(const char *path, int flags, ...) {
  REAL(open);
  va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more);
  return opens(path, flags) ? -1 : real(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
  REAL(open64);
  va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more);
  return opens(path, flags) ? -1 : real(path, flags, mode);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  REAL(clock_gettime);
  int failed = real(clock, now);
  if (!failed && told && clock == CLOCK_REALTIME) now->tv_sec += told->clock_s;
  return failed;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  static int (*real)(struct timeval *, void *);
  if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
  int failed = real(now, zone);
  if (!failed && told) now->tv_sec += told->clock_s;
  return failed;
}
time_t time(time_t *out) {
  REAL(time);
  time_t now = real(NULL) + (told ? told->clock_s : 0);
  if (out) *out = now;
  return now;
}
