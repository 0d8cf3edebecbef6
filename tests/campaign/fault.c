/* Preloaded under a command (LD_PRELOAD): counts the calls that touch files below one folder, and lets one of them fail.

   Below Python, so that SQLite, NumPy and every library that writes by itself are reached as well. Until `fault_arm` is
   called nothing is changed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* What happens at the chosen call. */
enum { NOTHING = 0, FAIL = 1, FAIL_FROM_HERE = 2, SHORT = 3, KILL_BEFORE = 4, KILL_AFTER = 5, CALL_BACK = 6, AHEAD = 7, BACK = 8 };

static char root[4096];
static size_t root_length;
static long chosen = -1, count;
static int effect, failure, log_to = -1, with_reads, armed;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void fault_arm(const char *folder, long number, int what, int error, int log, int reads) {
  snprintf(root, sizeof root, "%s", folder);
  root_length = strlen(root);
  chosen = number, effect = what, failure = error, log_to = log, with_reads = reads, count = 0, armed = 1;
}

static void (*called_back)(long);

/* `back` is called before every call that is met: what it finds on the disk is what a kill here would leave. */
void fault_call_back(void (*back)(long)) { called_back = back; }

static int below(const char *path) {
  return !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static const char *path_of(int directory, const char *path, char *buffer, size_t size) {
  char folder[4096] = "";
  if (path && path[0] == '/') return path;
  if (path && directory == AT_FDCWD) {
    if (!getcwd(folder, sizeof folder)) return "";
  } else {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    ssize_t length = readlink(link, folder, sizeof folder - 1);
    if (length < 0) return "";
    folder[length] = 0;
  }
  snprintf(buffer, size, path ? "%s/%s" : "%s", folder, path ? path : "");
  return buffer;
}

static void note(const char *operation, const char *path, const char *what) {
  char line[8192];
  int length = snprintf(line, sizeof line, "%ld\t%s\t%s\t%s\n", count, operation, path + root_length, what);
  if (log_to >= 0 && length > 0) (void)!REAL(write)(log_to, line, (size_t)length);
}

/* The wall clock, put ahead or back by a year from the chosen call on. Times of files are the kernel's and stay as they
   are; so does the clock that only measures durations, which no system lets jump. */
enum { A_YEAR = 365 * 24 * 3600 };
static volatile time_t shift;

int clock_gettime(clockid_t which, struct timespec *now) {
  static __typeof__(&clock_gettime) real;
  if (!real) real = REAL(clock_gettime);
  int result = real(which, now);
  if (!result && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) now->tv_sec += shift;
  return result;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  static __typeof__(&gettimeofday) real;
  if (!real) real = REAL(gettimeofday);
  int result = real(now, zone);
  if (!result) now->tv_sec += shift;
  return result;
}
time_t time(time_t *told) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (told) *told = now.tv_sec;
  return now.tv_sec;
}

/* 0: go on. 1: fail with errno set. 2: write half. 3: kill once it is done. */
static int meet(const char *operation, int directory, const char *path, int is_write) {
  char buffer[8192];
  if (!armed) return 0;
  int before = errno;
  const char *full = path_of(directory, path, buffer, sizeof buffer);
  errno = before;
  if (!below(full)) return 0;
  long number = __sync_add_and_fetch(&count, 1);
  if (effect == CALL_BACK) {
    note(operation, full, "");
    if (called_back) called_back(number);
    errno = before;
    return 0;
  }
  int hit = number == chosen || (effect == FAIL_FROM_HERE && chosen > 0 && number > chosen);
  if (!hit || number == chosen) note(operation, full, hit && effect ? "here" : "");
  if (!hit) return 0;
  if (effect == AHEAD || effect == BACK) { shift = effect == AHEAD ? A_YEAR : -A_YEAR; return 0; }
  if (effect == KILL_BEFORE) { raise(SIGKILL); for (;;) pause(); }
  if (effect == KILL_AFTER) return 3;
  if (effect == SHORT && is_write) return 2;
  /* Room is what a full disk lacks: what frees or closes still works there. */
  if (effect == FAIL_FROM_HERE && failure == ENOSPC && (!strcmp(operation, "unlink") || !strcmp(operation, "fsync"))) return 0;
  if (effect == FAIL || effect == FAIL_FROM_HERE) { errno = failure; return 1; }
  return 0;
}

#define AFTER(verdict) do { if ((verdict) == 3) { raise(SIGKILL); for (;;) pause(); } } while (0)

#define GUARDED(operation, directory, path, call, bad)                                                                 \
  int verdict = meet(operation, directory, path, 0);                                                                   \
  if (verdict == 1) return bad;                                                                                        \
  __typeof__(call) result = call;                                                                                      \
  AFTER(verdict);                                                                                                      \
  return result

#define WRITES(flags) (((flags) & (O_WRONLY | O_RDWR)) || ((flags) & O_CREAT))
#define OPENED(name, directory)                                                                                        \
  mode_t mode = 0;                                                                                                     \
  if (flags & (O_CREAT | O_TMPFILE)) {                                                                                 \
    va_list more;                                                                                                      \
    va_start(more, flags);                                                                                             \
    mode = va_arg(more, mode_t);                                                                                       \
    va_end(more);                                                                                                      \
  }                                                                                                                    \
  int watched = WRITES(flags) || with_reads;                                                                           \
  int verdict = watched ? meet(WRITES(flags) ? "open-to-write" : "open-to-read", directory, path, 0) : 0;              \
  if (verdict == 1) return -1

int open(const char *path, int flags, ...) {
  OPENED(open, AT_FDCWD);
  int result = REAL(open)(path, flags, mode);
  AFTER(verdict);
  return result;
}
int open64(const char *path, int flags, ...) {
  OPENED(open64, AT_FDCWD);
  int result = REAL(open64)(path, flags, mode);
  AFTER(verdict);
  return result;
}
int openat(int directory, const char *path, int flags, ...) {
  OPENED(openat, directory);
  int result = REAL(openat)(directory, path, flags, mode);
  AFTER(verdict);
  return result;
}
int openat64(int directory, const char *path, int flags, ...) {
  OPENED(openat64, directory);
  int result = REAL(openat64)(directory, path, flags, mode);
  AFTER(verdict);
  return result;
}

#define WRITTEN(call, half)                                                                                            \
  int verdict = meet("write", file, NULL, 1);                                                                          \
  if (verdict == 1) return -1;                                                                                         \
  ssize_t result = verdict == 2 ? (half) : (call);                                                                     \
  AFTER(verdict);                                                                                                      \
  return result

ssize_t write(int file, const void *bytes, size_t size) {
  WRITTEN(REAL(write)(file, bytes, size), REAL(write)(file, bytes, (size + 1) / 2));
}
ssize_t pwrite(int file, const void *bytes, size_t size, off_t at) {
  WRITTEN(REAL(pwrite)(file, bytes, size, at), REAL(pwrite)(file, bytes, (size + 1) / 2, at));
}
ssize_t pwrite64(int file, const void *bytes, size_t size, off64_t at) {
  WRITTEN(REAL(pwrite64)(file, bytes, size, at), REAL(pwrite64)(file, bytes, (size + 1) / 2, at));
}
ssize_t writev(int file, const struct iovec *parts, int number) {
  WRITTEN(REAL(writev)(file, parts, number), REAL(writev)(file, parts, 1));
}
/* What C keeps back may fail only when the file is closed, which few ask about: nothing should be written this way. */
size_t fwrite(const void *bytes, size_t size, size_t number, FILE *stream) {
  int verdict = meet("fwrite", fileno(stream), NULL, 1);
  if (verdict == 1) return 0;
  size_t result = REAL(fwrite)(bytes, size, verdict == 2 ? number / 2 : number, stream);
  AFTER(verdict);
  return result;
}
ssize_t read(int file, void *bytes, size_t size) {
  if (with_reads && meet("read", file, NULL, 0) == 1) return -1;
  return REAL(read)(file, bytes, size);
}
ssize_t pread(int file, void *bytes, size_t size, off_t at) {
  if (with_reads && meet("read", file, NULL, 0) == 1) return -1;
  return REAL(pread)(file, bytes, size, at);
}
ssize_t pread64(int file, void *bytes, size_t size, off64_t at) {
  if (with_reads && meet("read", file, NULL, 0) == 1) return -1;
  return REAL(pread64)(file, bytes, size, at);
}

int fsync(int file) { GUARDED("fsync", file, NULL, REAL(fsync)(file), -1); }
int fdatasync(int file) { GUARDED("fsync", file, NULL, REAL(fdatasync)(file), -1); }
int ftruncate(int file, off_t size) { GUARDED("truncate", file, NULL, REAL(ftruncate)(file, size), -1); }
int ftruncate64(int file, off64_t size) { GUARDED("truncate", file, NULL, REAL(ftruncate64)(file, size), -1); }
int posix_fallocate(int file, off_t at, off_t size) {
  GUARDED("allocate", file, NULL, REAL(posix_fallocate)(file, at, size), failure);
}
int posix_fallocate64(int file, off64_t at, off64_t size) {
  GUARDED("allocate", file, NULL, REAL(posix_fallocate64)(file, at, size), failure);
}
int rename(const char *from, const char *to) { GUARDED("rename", AT_FDCWD, to, REAL(rename)(from, to), -1); }
int renameat(int a, const char *from, int b, const char *to) {
  GUARDED("rename", b, to, REAL(renameat)(a, from, b, to), -1);
}
int mkdir(const char *path, mode_t mode) { GUARDED("mkdir", AT_FDCWD, path, REAL(mkdir)(path, mode), -1); }
int mkdirat(int folder, const char *path, mode_t mode) {
  GUARDED("mkdir", folder, path, REAL(mkdirat)(folder, path, mode), -1);
}
int link(const char *from, const char *to) { GUARDED("link", AT_FDCWD, to, REAL(link)(from, to), -1); }
int linkat(int a, const char *from, int b, const char *to, int flags) {
  GUARDED("link", b, to, REAL(linkat)(a, from, b, to, flags), -1);
}
int unlink(const char *path) { GUARDED("unlink", AT_FDCWD, path, REAL(unlink)(path), -1); }
int unlinkat(int folder, const char *path, int flags) {
  GUARDED("unlink", folder, path, REAL(unlinkat)(folder, path, flags), -1);
}
int rmdir(const char *path) { GUARDED("unlink", AT_FDCWD, path, REAL(rmdir)(path), -1); }
int chmod(const char *path, mode_t mode) { GUARDED("chmod", AT_FDCWD, path, REAL(chmod)(path, mode), -1); }
int fchmod(int file, mode_t mode) { GUARDED("chmod", file, NULL, REAL(fchmod)(file, mode), -1); }
int fchmodat(int folder, const char *path, mode_t mode, int flags) {
  GUARDED("chmod", folder, path, REAL(fchmodat)(folder, path, mode, flags), -1);
}
