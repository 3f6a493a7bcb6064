/* What the two halves of the floor share: the container, and the way between them. */
#ifndef FLOOR_H
#define FLOOR_H

#include <stdint.h>
#include <sys/types.h>

enum { HIERARCHIES = 16, ROOM = 512 };

/* One cgroup hierarchy, and the container's directory in it. */
struct hierarchy {
    char parent[ROOM / 2];
    char path[ROOM];
    char tasks[ROOM + 8];
};

/* The one container that there is at a time. */
struct container {
    struct hierarchy v1[HIERARCHIES];
    int count;
    struct hierarchy unified;
    struct hierarchy *cpuset, *devices;
    char cpus[ROOM], mems[ROOM];
    const char *source;
    char work[64];
    char rootfs[96];
    /* The process's word to us, ended by its execve(2); and ours to it. */
    int ready[2], go[2];
    int pidfd;
    pid_t pid;
};

extern struct container all;

/* What the container's process does from its birth to its program. */
void live(void) __attribute__((noreturn));

#endif
