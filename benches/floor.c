/*
 * Makes, starts and removes the container of `shimctl bench` with nothing around: no shim, no
 * socket, no spec. What it takes is the least that Create and Start can take on this machine.
 *
 *   floor --rootfs DIR [--rounds N] [--gap MS]
 *
 * Prints {"create":[ms…],"start":[ms…]}. Create lasts until the process waits before its
 * execve(2), start until that has been done; before each of the two nothing happens for the gap.
 * Removal is not timed. Needs root, and cgroup v1 with the devices controller.
 */
#define _GNU_SOURCE
#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct container all = {.ready = {-1, -1}, .go = {-1, -1}, .pidfd = -1};

static volatile sig_atomic_t stopped;

static void stop(int number) {
    (void)number;
    stopped = 1;
}

static void drop(int *fd) {
    if (*fd >= 0) {
        close(*fd);
    }
    *fd = -1;
}

/* ---- what is left, taken away ---- */

static void remove_container(void) {
    drop(&all.go[1]);
    if (all.pid > 0) {
        kill(all.pid, SIGKILL);
        while (waitpid(all.pid, NULL, 0) < 0 && errno == EINTR) {
        }
        all.pid = 0;
    }
    drop(&all.pidfd);
    drop(&all.go[0]);
    drop(&all.ready[0]);
    drop(&all.ready[1]);
    for (int i = 0; i < all.count; i++) {
        rmdir(all.v1[i].path);
    }
    if (all.unified.path[0]) {
        rmdir(all.unified.path);
    }
    umount2(all.rootfs, MNT_DETACH);
}

static void remove_all(void) {
    remove_container();
    for (int i = 0; i < all.count; i++) {
        rmdir(all.v1[i].parent);
    }
    if (all.unified.parent[0]) {
        rmdir(all.unified.parent);
    }
    rmdir(all.rootfs);
    rmdir(all.work);
}

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...) {
    int error = errno;
    va_list list;
    va_start(list, format);
    fprintf(stderr, "floor: ");
    vfprintf(stderr, format, list);
    fprintf(stderr, error ? ": %s\n" : "\n", strerror(error));
    va_end(list);
    remove_all();
    exit(1);
}

/* ---- before the first round ---- */

static void add_hierarchy(const char *root, const char *kind, const char *options) {
    struct hierarchy *one = &all.unified;
    if (strcmp(kind, "cgroup") == 0) {
        if (all.count == HIERARCHIES) {
            errno = 0;
            die("more than %d hierarchies", HIERARCHIES);
        }
        one = &all.v1[all.count++];
    }
    int pid = (int)getpid();
    snprintf(one->parent, sizeof one->parent, "%.200s/floor-%d", root, pid);
    snprintf(one->path, sizeof one->path, "%s/c", one->parent);
    snprintf(one->tasks, sizeof one->tasks, "%s/tasks", one->path);
    if (strstr(options, "cpuset")) {
        all.cpuset = one;
    }
    if (strstr(options, "devices")) {
        all.devices = one;
    }
    if (mkdir(one->parent, 0755)) {
        die("make %s", one->parent);
    }
}

static void find_hierarchies(void) {
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    if (!mounts) {
        die("read /proc/self/mountinfo");
    }
    char line[4096], root[256], kind[64], options[512];
    while (fgets(line, sizeof line, mounts)) {
        char *right = strstr(line, " - ");
        int found = sscanf(line, "%*s %*s %*s %*s %255s", root);
        if (!right || found != 1 || sscanf(right, " - %63s %*s %511s", kind, options) != 2) {
            continue;
        }
        if (strcmp(kind, "cgroup") == 0 || strcmp(kind, "cgroup2") == 0) {
            add_hierarchy(root, kind, options);
        }
    }
    fclose(mounts);
    if (!all.devices) {
        errno = 0;
        die("no cgroup v1 hierarchy with the devices controller");
    }
}

static void write_file(const char *folder, const char *name, const char *text) {
    char path[ROOM + 32];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0 || write(file, text, strlen(text)) < 0) {
        die("write %s to %s", text, path);
    }
    close(file);
}

/* A new cpuset is empty, and no task can join it until both sets are filled. */
static void read_set(const char *name, char set[ROOM]) {
    char path[ROOM];
    snprintf(path, sizeof path, "%s/../%s", all.cpuset->parent, name);
    FILE *file = fopen(path, "re");
    if (!file || !fgets(set, ROOM, file)) {
        die("read %s", path);
    }
    fclose(file);
    set[strcspn(set, "\n")] = 0;
    write_file(all.cpuset->parent, name, set);
}

static void prepare(void) {
    umask(0);
    /* What we were given is not the container's. */
    if (close_range(3, ~0U, CLOSE_RANGE_CLOEXEC)) {
        die("close_range");
    }
    strcpy(all.work, "/tmp/floor-XXXXXX");
    if (!mkdtemp(all.work)) {
        die("make a folder in /tmp");
    }
    snprintf(all.rootfs, sizeof all.rootfs, "%s/rootfs", all.work);
    if (mkdir(all.rootfs, 0755)) {
        die("make %s", all.rootfs);
    }
    find_hierarchies();
    if (all.cpuset) {
        read_set("cpuset.cpus", all.cpus);
        read_set("cpuset.mems", all.mems);
    }
}

/* ---- a round ---- */

static void make_cgroups(void) {
    static const char *const allowed[] = {
        "b *:* m",   "c *:* m",   "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm",
        "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm",
    };
    for (int i = 0; i < all.count; i++) {
        if (mkdir(all.v1[i].path, 0755)) {
            die("make %s", all.v1[i].path);
        }
    }
    if (all.unified.path[0] && mkdir(all.unified.path, 0755)) {
        die("make %s", all.unified.path);
    }
    if (all.cpuset) {
        write_file(all.cpuset->path, "cpuset.cpus", all.cpus);
        write_file(all.cpuset->path, "cpuset.mems", all.mems);
    }
    write_file(all.devices->path, "devices.deny", "a");
    char path[ROOM + 32];
    snprintf(path, sizeof path, "%s/devices.allow", all.devices->path);
    int allow = open(path, O_WRONLY | O_CLOEXEC);
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
        if (write(allow, allowed[i], strlen(allowed[i])) < 0) {
            die("allow %s", allowed[i]);
        }
    }
    close(allow);
}

static void clone_process(void) {
    struct clone_args how = {
        .flags = CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | CLONE_NEWNET,
        .exit_signal = SIGCHLD,
    };
    how.flags |= CLONE_PIDFD;
    how.pidfd = (uint64_t)(uintptr_t)&all.pidfd;
    int cgroup = -1;
    if (all.unified.path[0]) {
        cgroup = open(all.unified.path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        how.flags |= CLONE_INTO_CGROUP;
        how.cgroup = (uint64_t)cgroup;
    }
    if (pipe2(all.ready, O_CLOEXEC) || pipe2(all.go, O_CLOEXEC)) {
        die("make a pipe");
    }
    long pid = syscall(SYS_clone3, &how, sizeof how);
    if (pid == 0) {
        live();
    }
    if (pid < 0) {
        die("clone");
    }
    all.pid = (pid_t)pid;
    drop(&cgroup);
    drop(&all.ready[1]);
}

/* Reads the process's word; none is told by the end of the pipe, which execve(2) closes. */
static void hear(const char *expected) {
    char text[256] = "";
    ssize_t length = read(all.ready[0], text, sizeof text - 1);
    if (length < 0) {
        die("read from the process");
    }
    if (strcmp(text, expected) != 0) {
        errno = 0;
        die("%s", text[0] ? text + 1 : "the process ended");
    }
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static void play_round(const struct timespec *gap, double *create, double *start) {
    nanosleep(gap, NULL);
    double before = now();
    if (mount(all.source, all.rootfs, NULL, MS_BIND | MS_REC, NULL)) {
        die("mount %s", all.source);
    }
    make_cgroups();
    clone_process();
    hear("r");
    double created = now();
    nanosleep(gap, NULL);
    double between = now();
    if (write(all.go[1], "g", 1) != 1) {
        die("start");
    }
    hear("");
    *create = created - before;
    *start = now() - between;
    remove_container();
}

static void print_list(const char *name, const double *times, long count) {
    printf("\"%s\":[", name);
    for (long i = 0; i < count; i++) {
        printf(i ? ",%.4f" : "%.4f", times[i]);
    }
    printf("]");
}

static long number_of(const char *text, const char *option) {
    char *end;
    long number = text ? strtol(text, &end, 10) : -1;
    if (number < 0 || number > 1000000 || !text[0] || *end) {
        fprintf(stderr, "floor: %s needs a number\n", option);
        exit(2);
    }
    return number;
}

int main(int count, char **arguments) {
    long rounds = 50, gap = 0;
    for (int i = 1; i < count; i += 2) {
        const char *option = arguments[i], *value = arguments[i + 1];
        if (strcmp(option, "--rounds") == 0) {
            rounds = number_of(value, option);
        } else if (strcmp(option, "--gap") == 0) {
            gap = number_of(value, option);
        } else if (strcmp(option, "--rootfs") == 0 && value) {
            all.source = value;
        } else {
            fprintf(stderr, "usage: floor --rootfs DIR [--rounds N] [--gap MS]\n");
            return 2;
        }
    }
    double *create = calloc((size_t)rounds + 1, sizeof *create);
    double *start = calloc((size_t)rounds + 1, sizeof *start);
    if (!all.source || !rounds || !create || !start) {
        fprintf(stderr, "usage: floor --rootfs DIR [--rounds N] [--gap MS]\n");
        return 2;
    }
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    prepare();
    /* The first makes what later ones find: caches, and folders that the image lacks. */
    const struct timespec pause = {gap / 1000, gap % 1000 * 1000000};
    play_round(&pause, create, start);
    for (long i = 0; i < rounds && !stopped; i++) {
        play_round(&pause, create + i, start + i);
    }
    remove_all();
    if (stopped) {
        return 1;
    }
    printf("{");
    print_list("create", create, rounds);
    printf(",");
    print_list("start", start, rounds);
    printf("}\n");
    return 0;
}
