/* Loaded in front of libc: one file operation of a process, or of its children, fails or is its last.

   FAULT_ROOT: operations on what lies below this folder count. FAULT_LOG: a file that grows by one line of
   16 bytes for each, with its name, over parent and children. FAULT_AT: number of the operation that is
   met, from 1. FAULT_KIND: "exit", "short" (half of a write), or an error number. Whoever calls libc is met:
   Python, and libhdf5 as well. */

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

#define LINE 16

enum verdict { GO_ON, FAIL, SHORTEN };

static int is_below(const char *path) {
    const char *root = getenv("FAULT_ROOT");
    return root && path && !strncmp(path, root, strlen(root));
}

static int is_ours(int descriptor) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    return is_below(path);
}

static int is_at(int folder, const char *path) {
    return path && path[0] != '/' && folder != AT_FDCWD ? is_ours(folder) : is_below(path);
}

/* Count an operation, and say what is to become of it; nothing here calls what is wrapped below. */
static enum verdict meet(const char *name, int counts) {
    if (!counts) return GO_ON;
    int before = errno;
    struct stat status;
    char line[LINE + 1];
    snprintf(line, sizeof line, "%-*s\n", LINE - 1, name);
    int log = syscall(SYS_openat, AT_FDCWD, getenv("FAULT_LOG"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    syscall(SYS_write, log, line, LINE);
    syscall(SYS_fstat, log, &status);
    syscall(SYS_close, log);
    errno = before;
    if (status.st_size != LINE * atol(getenv("FAULT_AT"))) return GO_ON;
    const char *kind = getenv("FAULT_KIND");
    if (!strcmp(kind, "exit")) syscall(SYS_exit_group, 9);
    if (!strcmp(kind, "short")) return SHORTEN;
    errno = atoi(kind);
    return FAIL;
}

#define REAL(type, name, types) ((type(*) types)dlsym(RTLD_NEXT, #name))

#define WRAP(name, parameters, types, arguments, counts)                                                     \
    int name parameters {                                                                                    \
        return meet(#name, counts) == FAIL ? -1 : REAL(int, name, types) arguments;                          \
    }

WRAP(fsync, (int d), (int), (d), is_ours(d))
WRAP(fdatasync, (int d), (int), (d), is_ours(d))
WRAP(ftruncate, (int d, off_t n), (int, off_t), (d, n), is_ours(d))
WRAP(ftruncate64, (int d, off64_t n), (int, off64_t), (d, n), is_ours(d))
WRAP(fchmod, (int d, mode_t m), (int, mode_t), (d, m), is_ours(d))
WRAP(fchown, (int d, uid_t u, gid_t g), (int, uid_t, gid_t), (d, u, g), is_ours(d))
WRAP(chmod, (const char *p, mode_t m), (const char *, mode_t), (p, m), is_below(p))
WRAP(mkdir, (const char *p, mode_t m), (const char *, mode_t), (p, m), is_below(p))
WRAP(rmdir, (const char *p), (const char *), (p), is_below(p))
WRAP(unlink, (const char *p), (const char *), (p), is_below(p))
WRAP(unlinkat, (int d, const char *p, int f), (int, const char *, int), (d, p, f), is_at(d, p))
WRAP(link, (const char *p, const char *q), (const char *, const char *), (p, q), is_below(q))
WRAP(linkat, (int d, const char *p, int e, const char *q, int f),
     (int, const char *, int, const char *, int), (d, p, e, q, f), is_at(e, q))
WRAP(rename, (const char *p, const char *q), (const char *, const char *), (p, q), is_below(q))
WRAP(renameat2, (int d, const char *p, int e, const char *q, unsigned f),
     (int, const char *, int, const char *, unsigned), (d, p, e, q, f), is_at(e, q))

/* What a close could not write is lost, but the descriptor is closed all the same. */
int close(int d) {
    enum verdict verdict = meet("close", is_ours(d));
    int error = errno, result = REAL(int, close, (int))(d);
    if (verdict != FAIL) return result;
    errno = error;
    return -1;
}

#define WRAP_MOVING(name, parameters, types, whole, half)                                                    \
    ssize_t name parameters {                                                                                \
        enum verdict verdict = meet(#name, is_ours(d));                                                      \
        if (verdict == FAIL) return -1;                                                                      \
        return verdict == SHORTEN && n > 1 ? REAL(ssize_t, name, types) half                           \
                                            : REAL(ssize_t, name, types) whole;                              \
    }

WRAP_MOVING(read, (int d, void *b, size_t n), (int, void *, size_t), (d, b, n), (d, b, n / 2))
WRAP_MOVING(pread, (int d, void *b, size_t n, off_t o), (int, void *, size_t, off_t), (d, b, n, o), (d, b, n / 2, o))
WRAP_MOVING(pread64, (int d, void *b, size_t n, off64_t o), (int, void *, size_t, off64_t), (d, b, n, o),
            (d, b, n / 2, o))
WRAP_MOVING(write, (int d, const void *b, size_t n), (int, const void *, size_t), (d, b, n), (d, b, n / 2))
WRAP_MOVING(pwrite, (int d, const void *b, size_t n, off_t o), (int, const void *, size_t, off_t), (d, b, n, o),
            (d, b, n / 2, o))
WRAP_MOVING(pwrite64, (int d, const void *b, size_t n, off64_t o), (int, const void *, size_t, off64_t),
            (d, b, n, o), (d, b, n / 2, o))

#define WRAP_OPEN(name)                                                                                      \
    int name(const char *path, int flags, ...) {                                                             \
        va_list rest;                                                                                        \
        va_start(rest, flags);                                                                               \
        int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0;                                    \
        va_end(rest);                                                                                        \
        if (meet(#name, is_below(path)) == FAIL) return -1;                                                  \
        return REAL(int, name, (const char *, int, ...))(path, flags, mode);                                 \
    }

WRAP_OPEN(open)
WRAP_OPEN(open64)
