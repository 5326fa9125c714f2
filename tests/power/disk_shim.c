/* Stands between a process and its disk (LD_PRELOAD): writes down what reaches the state folder,
 * and fails chosen calls. The tests compile it and steer it through the disk_* functions.
 *
 * Recorded, in the order in which it happened: files made, written, cut, synced, renamed, removed;
 * folders synced; bytes sent over TCP; notes of the test. A record is
 *     u32 kind, u32 failed, u64 file (inode), u64 offset, u64 nanoseconds, u32 length, bytes
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { MADE = 1, WRITE, CUT, SYNC, FOLDER_SYNC, RENAME, REMOVE, FOLDER, SEND, NOTE };
enum { OPENS = 1, WRITES = 2, SYNCS = 4, STATS = 8, REMOVES = 16, RENAMES = 32, CUTS = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_length;
static int record = -1;

static struct {
    int kinds;
    char only[64];   /* the end of the file's name; empty: any */
    long first, last; /* which of the matching calls fail, counted from 1 */
    int error;
    int lie; /* syncs say that all is well and do nothing */
    long seen, fired;
} fault;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* --- what the test calls ------------------------------------------------------------------- */

static void put(uint32_t kind, int failed, uint64_t file, uint64_t offset, const void *data,
                size_t length) {
    if (record < 0) return;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct __attribute__((packed)) {
        uint32_t kind, failed;
        uint64_t file, offset, time;
        uint32_t length;
    } head = {kind, (uint32_t)failed, file, offset,
              (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec, (uint32_t)length};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)data, length}};
    syscall(SYS_writev, record, parts, 2);
}

void disk_begin(const char *folder, const char *log) {
    pthread_mutex_lock(&lock);
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    memset(&fault, 0, sizeof fault);
    record = log[0] ? (int)syscall(SYS_openat, AT_FDCWD, log,
                                   O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600)
                    : -1;
    pthread_mutex_unlock(&lock);
}

void disk_end(void) {
    pthread_mutex_lock(&lock);
    if (record >= 0) syscall(SYS_close, record);
    record = -1;
    root_length = 0;
    pthread_mutex_unlock(&lock);
}

void disk_note(const char *text) {
    pthread_mutex_lock(&lock);
    put(NOTE, 0, 0, 0, text, strlen(text));
    pthread_mutex_unlock(&lock);
}

void disk_fault(int kinds, const char *only, long first, long count, int error) {
    pthread_mutex_lock(&lock);
    memset(&fault, 0, sizeof fault);
    fault.kinds = kinds;
    snprintf(fault.only, sizeof fault.only, "%s", only);
    fault.first = first;
    fault.last = first + count - 1;
    fault.error = error;
    pthread_mutex_unlock(&lock);
}

void disk_lie(void) { fault.lie = 1; }
long disk_seen(void) { return fault.seen; }
long disk_fired(void) { return fault.fired; }

/* --- whose call it is ---------------------------------------------------------------------- */

static int inside(const char *path) {
    return root_length && strncmp(path, root, root_length) == 0 &&
           (path[root_length] == '/' || !path[root_length]);
}

static int path_of(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = syscall(SYS_readlink, link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return inside(path);
}

static void full_path(int folder, const char *name, char *path) {
    path[0] = 0;
    if (!name) return;
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
    } else if (folder == AT_FDCWD) {
        char here[PATH_MAX / 2];
        if (syscall(SYS_getcwd, here, sizeof here) > 0) snprintf(path, PATH_MAX, "%s/%s", here, name);
    } else {
        char base[PATH_MAX];
        path_of(folder, base);
        snprintf(path, PATH_MAX, "%.2000s/%.2000s", base, name);
    }
}

static uint64_t inode_of(int descriptor) {
    struct stat facts;
    return syscall(SYS_fstat, descriptor, &facts) ? 0 : facts.st_ino;
}

/* Count a call; return whether it is to fail, with errno set. */
static int fails(int kind, const char *path) {
    if (!(fault.kinds & kind)) return 0;
    size_t length = strlen(path), end = strlen(fault.only);
    if (end > length || strcmp(path + length - end, fault.only)) return 0;
    fault.seen++;
    if (fault.seen < fault.first || fault.seen > fault.last) return 0;
    fault.fired++;
    errno = fault.error;
    return 1;
}

/* --- opening ------------------------------------------------------------------------------- */

static int open_any(int folder, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    full_path(folder, name, path);
    if (!inside(path)) return (int)syscall(SYS_openat, folder, name, flags, mode);
    pthread_mutex_lock(&lock);
    int opened = -1;
    if (!fails(OPENS, path)) {
        struct stat before;
        int was = syscall(SYS_stat, path, &before) == 0;
        opened = (int)syscall(SYS_openat, folder, name, flags, mode);
        if (opened >= 0 && !was) put(MADE, 0, inode_of(opened), 0, path, strlen(path));
        if (opened >= 0 && was && flags & O_TRUNC) put(CUT, 0, inode_of(opened), 0, "", 0);
    }
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
    return opened;
}

#define MODE()                                     \
    mode_t mode = 0;                               \
    if (flags & (O_CREAT | O_TMPFILE)) {           \
        va_list rest;                              \
        va_start(rest, flags);                     \
        mode = va_arg(rest, mode_t);               \
        va_end(rest);                              \
    }

int open(const char *name, int flags, ...) { MODE() return open_any(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE() return open_any(AT_FDCWD, name, flags, mode); }
int openat(int at, const char *name, int flags, ...) { MODE() return open_any(at, name, flags, mode); }
int openat64(int at, const char *name, int flags, ...) { MODE() return open_any(at, name, flags, mode); }
int __open_2(const char *name, int flags) { return open_any(AT_FDCWD, name, flags, 0); }
int __open64_2(const char *name, int flags) { return open_any(AT_FDCWD, name, flags, 0); }

/* --- writing ------------------------------------------------------------------------------- */

static ssize_t write_any(int descriptor, const void *data, size_t length, off_t at, int placed) {
    char path[PATH_MAX];
    if (descriptor == record || !path_of(descriptor, path))
        return placed ? syscall(SYS_pwrite64, descriptor, data, length, at)
                      : syscall(SYS_write, descriptor, data, length);
    pthread_mutex_lock(&lock);
    ssize_t done = -1;
    if (!fails(WRITES, path)) {
        if (!placed) {
            if (syscall(SYS_fcntl, descriptor, F_GETFL) & O_APPEND) {
                struct stat facts;
                syscall(SYS_fstat, descriptor, &facts);
                at = facts.st_size;
            } else {
                at = syscall(SYS_lseek, descriptor, 0, SEEK_CUR);
            }
        }
        done = placed ? syscall(SYS_pwrite64, descriptor, data, length, at)
                      : syscall(SYS_write, descriptor, data, length);
        if (done > 0) put(WRITE, 0, inode_of(descriptor), (uint64_t)at, data, (size_t)done);
    }
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
    return done;
}

ssize_t write(int fd, const void *data, size_t length) { return write_any(fd, data, length, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t at) { return write_any(fd, data, length, at, 1); }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t at) { return write_any(fd, data, length, at, 1); }

static int cut_any(int descriptor, off_t length) {
    char path[PATH_MAX];
    if (!path_of(descriptor, path)) return (int)syscall(SYS_ftruncate, descriptor, length);
    pthread_mutex_lock(&lock);
    int done = -1;
    if (!fails(CUTS, path)) {
        done = (int)syscall(SYS_ftruncate, descriptor, length);
        if (!done) put(CUT, 0, inode_of(descriptor), (uint64_t)length, "", 0);
    }
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
    return done;
}

int ftruncate(int fd, off_t length) { return cut_any(fd, length); }
int ftruncate64(int fd, off64_t length) { return cut_any(fd, length); }

static int room_any(int descriptor, off_t at, off_t length) {
    char path[PATH_MAX];
    int error = 0;
    int ours = path_of(descriptor, path);
    pthread_mutex_lock(&lock);
    if (ours && fails(WRITES, path)) {
        error = errno;
    } else if (syscall(SYS_fallocate, descriptor, 0, at, length)) {
        error = errno;
    } else if (ours) {
        struct stat facts;
        syscall(SYS_fstat, descriptor, &facts);
        put(CUT, 0, facts.st_ino, (uint64_t)facts.st_size, "", 0);
    }
    pthread_mutex_unlock(&lock);
    return error;
}

int posix_fallocate(int fd, off_t at, off_t length) { return room_any(fd, at, length); }
int posix_fallocate64(int fd, off64_t at, off64_t length) { return room_any(fd, at, length); }

/* --- syncing ------------------------------------------------------------------------------- */

static int sync_any(int descriptor) {
    char path[PATH_MAX];
    if (!path_of(descriptor, path)) return (int)syscall(SYS_fsync, descriptor);
    pthread_mutex_lock(&lock);
    struct stat facts;
    syscall(SYS_fstat, descriptor, &facts);
    int failed = fails(SYNCS, path);
    if (failed || !fault.lie)
        put(S_ISDIR(facts.st_mode) ? FOLDER_SYNC : SYNC, failed, facts.st_ino, 0, path, strlen(path));
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
    return failed ? -1 : 0;
}

int fsync(int fd) { return sync_any(fd); }
int fdatasync(int fd) { return sync_any(fd); }

/* --- names --------------------------------------------------------------------------------- */

int rename(const char *old, const char *new) {
    char from[PATH_MAX], both[2 * PATH_MAX];
    full_path(AT_FDCWD, old, from);
    if (!inside(from)) return (int)syscall(SYS_rename, old, new);
    pthread_mutex_lock(&lock);
    int done = -1;
    if (!fails(RENAMES, from)) {
        done = (int)syscall(SYS_rename, old, new);
        int length = snprintf(both, sizeof both, "%s\n%s", from, new);
        if (!done) put(RENAME, 0, 0, 0, both, (size_t)length);
    }
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
    return done;
}

static int remove_any(int folder, const char *name, int flags) {
    char path[PATH_MAX];
    full_path(folder, name, path);
    if (!inside(path)) return (int)syscall(SYS_unlinkat, folder, name, flags);
    pthread_mutex_lock(&lock);
    int done = -1;
    if (!fails(REMOVES, path)) {
        done = (int)syscall(SYS_unlinkat, folder, name, flags);
        if (!done) put(REMOVE, 0, 0, 0, path, strlen(path));
    }
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
    return done;
}

int unlink(const char *name) { return remove_any(AT_FDCWD, name, 0); }
int unlinkat(int folder, const char *name, int flags) { return remove_any(folder, name, flags); }

static int folder_any(int folder, const char *name, mode_t mode) {
    char path[PATH_MAX];
    full_path(folder, name, path);
    int done = (int)syscall(SYS_mkdirat, folder, name, mode);
    if (!done && inside(path)) {
        pthread_mutex_lock(&lock);
        struct stat facts;
        syscall(SYS_stat, path, &facts);
        put(FOLDER, 0, facts.st_ino, 0, path, strlen(path));
        pthread_mutex_unlock(&lock);
    }
    return done;
}

int mkdir(const char *name, mode_t mode) { return folder_any(AT_FDCWD, name, mode); }
int mkdirat(int folder, const char *name, mode_t mode) { return folder_any(folder, name, mode); }

/* --- looking ------------------------------------------------------------------------------- */

static int looks(const char *path) {
    if (!inside(path)) return 0;
    pthread_mutex_lock(&lock);
    int failed = fails(STATS, path);
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
    return failed;
}

static int stat_any(int folder, const char *name, struct stat *facts, int flags) {
    char path[PATH_MAX];
    full_path(folder, name, path);
    if (looks(path)) return -1;
    return (int)syscall(SYS_newfstatat, folder, name, facts, flags);
}

static int fstat_any(int descriptor, struct stat *facts) {
    char path[PATH_MAX];
    if (path_of(descriptor, path) && looks(path)) return -1;
    return (int)syscall(SYS_fstat, descriptor, facts);
}

int stat(const char *name, struct stat *facts) { return stat_any(AT_FDCWD, name, facts, 0); }
int lstat(const char *name, struct stat *facts) { return stat_any(AT_FDCWD, name, facts, AT_SYMLINK_NOFOLLOW); }
int fstatat(int at, const char *name, struct stat *facts, int flags) { return stat_any(at, name, facts, flags); }
int fstat(int fd, struct stat *facts) { return fstat_any(fd, facts); }
int stat64(const char *name, struct stat64 *facts) { return stat_any(AT_FDCWD, name, (struct stat *)facts, 0); }
int lstat64(const char *name, struct stat64 *facts) { return stat_any(AT_FDCWD, name, (struct stat *)facts, AT_SYMLINK_NOFOLLOW); }
int fstatat64(int at, const char *name, struct stat64 *facts, int flags) { return stat_any(at, name, (struct stat *)facts, flags); }
int fstat64(int fd, struct stat64 *facts) { return fstat_any(fd, (struct stat *)facts); }

int access(const char *name, int mode) {
    char path[PATH_MAX];
    full_path(AT_FDCWD, name, path);
    if (looks(path)) return -1;
    return (int)syscall(SYS_access, name, mode);
}

/* --- sending ------------------------------------------------------------------------------- */

ssize_t send(int socket, const void *data, size_t length, int flags) {
    struct sockaddr_storage who;
    socklen_t size = sizeof who;
    if (!root_length || syscall(SYS_getsockname, socket, &who, &size) ||
        (who.ss_family != AF_INET && who.ss_family != AF_INET6))
        return REAL(send)(socket, data, length, flags);
    pthread_mutex_lock(&lock);
    ssize_t done = REAL(send)(socket, data, length, flags | MSG_DONTWAIT);
    int kept = errno;
    if (done > 0) put(SEND, 0, inode_of(socket), 0, data, (size_t)done);
    pthread_mutex_unlock(&lock);
    errno = kept;
    return done;
}
