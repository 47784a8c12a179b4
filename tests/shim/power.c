/*
 * What a disk is guaranteed to hold after a power cut, written down while a node runs.
 *
 * Preloaded into the node, this records into the file named by POWER_LOG:
 *
 *   C seq dir ino path           a file was created
 *   T ino length                 a file was cut to a length
 *   S ino length                 a sync of a file completed; it covered this many bytes
 *   R seq dir old new backup     a file was renamed; what `new` was before is kept as `backup` ("-": nothing)
 *   U seq dir path backup        a file was removed; it is kept as `backup`
 *   D dir seq                    a sync of a folder completed; it covered the entries up to this number
 *
 * Lengths are taken before a sync begins and written down only after it has succeeded, so nothing is recorded that
 * was not asked for in time. Killing the process leaves the record whole: each line is one write to the page cache.
 * Only paths below POWER_ROOT count. Backups are hard links in the folder POWER_KEEP.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static unsigned long operations;

static const char *setting(const char *name) {
  const char *value = getenv(name);
  return value ? value : "";
}

static void record(const char *format, ...) {
  static int log = -1;
  if (log < 0) {
    int opened = (int)syscall(SYS_openat, AT_FDCWD, setting("POWER_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int unset = -1;
    if (!__atomic_compare_exchange_n(&log, &unset, opened, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) syscall(SYS_close, opened);
  }
  char line[3 * PATH_MAX];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  if (length > 0 && length < (int)sizeof line && syscall(SYS_write, log, line, length) != length) abort();
}

/* The absolute path of `path` as seen from `at`; 0 when it is not below the root. */
static int below_root(int at, const char *path, char *full) {
  if (path[0] == '/') {
    snprintf(full, PATH_MAX, "%s", path);
  } else {
    char folder[PATH_MAX];
    if (at == AT_FDCWD) {
      if (!getcwd(folder, sizeof folder)) return 0;
    } else {
      char link[64];
      snprintf(link, sizeof link, "/proc/self/fd/%d", at);
      ssize_t length = readlink(link, folder, sizeof folder - 1);
      if (length < 0) return 0;
      folder[length] = 0;
    }
    if (snprintf(full, PATH_MAX, "%s/%s", folder, path) >= PATH_MAX) return 0;
  }
  const char *root = setting("POWER_ROOT");
  return root[0] && strncmp(full, root, strlen(root)) == 0;
}

static unsigned long folder_of(const char *full) {
  char folder[PATH_MAX];
  snprintf(folder, sizeof folder, "%s", full);
  char *slash = strrchr(folder, '/');
  if (slash) *slash = 0;
  struct stat found;
  return stat(folder[0] ? folder : "/", &found) == 0 ? (unsigned long)found.st_ino : 0;
}

static unsigned long next(void) { return __atomic_add_fetch(&operations, 1, __ATOMIC_SEQ_CST); }

/* Keeps what is at `full` as a hard link; "-" when there is nothing. */
static void keep(const char *full, unsigned long seq, char *backup) {
  snprintf(backup, PATH_MAX, "%s/%lu", setting("POWER_KEEP"), seq);
  if (link(full, backup) != 0) strcpy(backup, "-");
}

static int opening(int at, const char *path, int flags, mode_t mode) {
  char full[PATH_MAX];
  int counts = (flags & (O_CREAT | O_TRUNC)) && below_root(at, path, full);
  struct stat before;
  int existed = counts && stat(full, &before) == 0;
  int fd = (int)syscall(SYS_openat, at, path, flags, mode);
  if (fd >= 0 && counts) {
    int error = errno;
    struct stat after;
    if (fstat(fd, &after) == 0 && S_ISREG(after.st_mode)) {
      if (!existed)
        record("C\t%lu\t%lu\t%lu\t%s\n", next(), folder_of(full), (unsigned long)after.st_ino, full);
      else if (flags & O_TRUNC)
        record("T\t%lu\t0\n", (unsigned long)after.st_ino);
    }
    errno = error;
  }
  return fd;
}

#define OPEN(name)                                  \
  int name(const char *path, int flags, ...) {      \
    va_list arguments;                              \
    va_start(arguments, flags);                     \
    mode_t mode = va_arg(arguments, mode_t);        \
    va_end(arguments);                              \
    return opening(AT_FDCWD, path, flags, mode);    \
  }
#define OPENAT(name)                                   \
  int name(int at, const char *path, int flags, ...) { \
    va_list arguments;                                 \
    va_start(arguments, flags);                        \
    mode_t mode = va_arg(arguments, mode_t);           \
    va_end(arguments);                                 \
    return opening(at, path, flags, mode);             \
  }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

static int syncing(int fd, long call) {
  struct stat found;
  int known = fstat(fd, &found) == 0;
  unsigned long covered = __atomic_load_n(&operations, __ATOMIC_SEQ_CST);
  int result = (int)syscall(call, fd);
  if (result == 0 && known) {
    int error = errno;
    if (S_ISDIR(found.st_mode))
      record("D\t%lu\t%lu\n", (unsigned long)found.st_ino, covered);
    else if (S_ISREG(found.st_mode))
      record("S\t%lu\t%lld\n", (unsigned long)found.st_ino, (long long)found.st_size);
    errno = error;
  }
  return result;
}

int fsync(int fd) { return syncing(fd, SYS_fsync); }
int fdatasync(int fd) { return syncing(fd, SYS_fdatasync); }

static int cutting(int fd, off_t length) {
  int result = (int)syscall(SYS_ftruncate, fd, length);
  struct stat found;
  if (result == 0 && fstat(fd, &found) == 0) record("T\t%lu\t%lld\n", (unsigned long)found.st_ino, (long long)length);
  return result;
}

int ftruncate(int fd, off_t length) { return cutting(fd, length); }
int ftruncate64(int fd, off64_t length) { return cutting(fd, length); }

static int renaming(int old_at, const char *old_path, int new_at, const char *new_path, unsigned flags) {
  char from[PATH_MAX], to[PATH_MAX], backup[PATH_MAX];
  int counts = below_root(old_at, old_path, from) & below_root(new_at, new_path, to);
  unsigned long seq = 0;
  struct stat found;
  counts = counts && stat(from, &found) == 0 && S_ISREG(found.st_mode);
  if (counts) {
    seq = next();
    keep(to, seq, backup);
  }
  int result = (int)syscall(SYS_renameat2, old_at, old_path, new_at, new_path, flags);
  if (result == 0 && counts) record("R\t%lu\t%lu\t%s\t%s\t%s\n", seq, folder_of(to), from, to, backup);
  return result;
}

int rename(const char *from, const char *to) { return renaming(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_at, const char *from, int to_at, const char *to) { return renaming(from_at, from, to_at, to, 0); }
int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
  return renaming(from_at, from, to_at, to, flags);
}

static int removing(int at, const char *path, int flags) {
  char full[PATH_MAX], backup[PATH_MAX];
  int counts = !(flags & AT_REMOVEDIR) && below_root(at, path, full);
  unsigned long seq = 0;
  if (counts) {
    seq = next();
    keep(full, seq, backup);
  }
  int result = (int)syscall(SYS_unlinkat, at, path, flags);
  if (result == 0 && counts) record("U\t%lu\t%lu\t%s\t%s\n", seq, folder_of(full), full, backup);
  return result;
}

int unlink(const char *path) { return removing(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return removing(at, path, flags); }
