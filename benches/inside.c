/*
 * The container's process: into its cgroups, its mounts, its devices, and out of its privileges.
 *
 * The image is trusted here: targets are plain paths, which a shim must never do.
 */
#define _GNU_SOURCE
#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Tells the parent which step failed: it prints that and cleans up. */
static void __attribute__((noreturn)) give_up(const char *step) {
    char text[256];
    int length = snprintf(text, sizeof text, "!%s: %s", step, strerror(errno));
    if (write(all.ready[1], text, (size_t)length) < 0) {
        _exit(2);
    }
    _exit(1);
}

static void must(long done, const char *step) {
    if (done < 0) {
        give_up(step);
    }
}

static void join_cgroups(void) {
    for (int i = 0; i < all.count; i++) {
        int tasks = open(all.v1[i].tasks, O_WRONLY | O_CLOEXEC);
        must(tasks, all.v1[i].tasks);
        must(write(tasks, "0", 1), all.v1[i].tasks);
    }
}

static void become_alone(void) {
    must(setsid(), "setsid");
    long ring = syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, "_ses.floor");
    if (ring >= 0) {
        /* All to who possesses it; view, read and search to who owns it. */
        must(syscall(SYS_keyctl, 5 /* KEYCTL_SETPERM */, ring, 0x3f0b0000), "keyring");
    }
    int netlink = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    must(netlink, "socket");
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    must(ioctl(netlink, SIOCSIFFLAGS, &lo), "loopback");
}

static void mount_filesystems(void) {
    const unsigned long plain = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    const unsigned long strict = MS_NOSUID | MS_STRICTATIME;
    must(mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL), "propagation");
    must(chdir(all.rootfs), "rootfs");
    must(mount("proc", "proc", "proc", plain, NULL), "proc");
    must(mount("tmpfs", "dev", "tmpfs", strict, "mode=755,size=65536k"), "dev");
    must(mkdir("dev/pts", 0755), "dev/pts");
    const char *terminals = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    must(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, terminals), "dev/pts");
    must(mkdir("dev/shm", 0755), "dev/shm");
    must(mount("shm", "dev/shm", "tmpfs", plain, "mode=1777,size=65536k"), "dev/shm");
    must(mkdir("dev/mqueue", 0755), "dev/mqueue");
    must(mount("mqueue", "dev/mqueue", "mqueue", plain, NULL), "dev/mqueue");
    must(mount("sysfs", "sys", "sysfs", plain | MS_RDONLY, NULL), "sys");
    if (mount("tmpfs", "run", "tmpfs", strict, "mode=755,size=65536k")) {
        must(mkdir("run", 0755), "run");
        must(mount("tmpfs", "run", "tmpfs", strict, "mode=755,size=65536k"), "run");
    }
}

static void make_devices(void) {
    static const struct {
        const char *path;
        unsigned major, minor;
    } nodes[] = {
        {"dev/null", 1, 3},   {"dev/zero", 1, 5},    {"dev/full", 1, 7},
        {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0},
    };
    static const char *const links[][2] = {
        {"/proc/self/fd", "dev/fd"},       {"/proc/self/fd/0", "dev/stdin"},
        {"/proc/self/fd/1", "dev/stdout"}, {"/proc/self/fd/2", "dev/stderr"},
        {"pts/ptmx", "dev/ptmx"},
    };
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
        dev_t number = makedev(nodes[i].major, nodes[i].minor);
        must(mknod(nodes[i].path, S_IFCHR | 0666, number), nodes[i].path);
    }
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        must(symlink(links[i][0], links[i][1]), links[i][1]);
    }
}

static void hide_paths(void) {
    static const char *const readonly[] = {
        "proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger",
    };
    static const char *const masked[] = {
        "proc/acpi",        "proc/asound",      "proc/kcore",
        "proc/keys",        "proc/latency_stats", "proc/timer_list",
        "proc/timer_stats", "proc/sched_debug", "sys/firmware",
        "sys/devices/virtual/powercap", "proc/scsi",
    };
    const unsigned long flags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    for (size_t i = 0; i < sizeof readonly / sizeof *readonly; i++) {
        const char *path = readonly[i];
        if (mount(path, path, NULL, MS_BIND | MS_REC, NULL) == 0) {
            must(mount(NULL, path, NULL, flags, NULL), path);
        } else if (errno != ENOENT) {
            give_up(path);
        }
    }
    for (size_t i = 0; i < sizeof masked / sizeof *masked; i++) {
        const char *path = masked[i];
        if (mount("/dev/null", path, NULL, MS_BIND, NULL) == 0 || errno == ENOENT) {
            continue;
        }
        /* A directory. */
        unsigned long empty = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
        must(mount("tmpfs", path, "tmpfs", empty, "nr_blocks=1,nr_inodes=1"), path);
    }
}

static void change_root(void) {
    must(syscall(SYS_pivot_root, ".", "."), "pivot root");
    must(umount2(".", MNT_DETACH), "old root");
    must(chdir("/"), "new root");
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    must(null, "/dev/null");
    for (int fd = 0; fd < 3; fd++) {
        must(dup2(null, fd), "streams");
    }
}

static void drop_privileges(void) {
    static const int kept[] = {
        CAP_CHOWN,   CAP_DAC_OVERRIDE, CAP_FSETID,  CAP_FOWNER,           CAP_MKNOD,
        CAP_NET_RAW, CAP_SETGID,       CAP_SETUID,  CAP_SETFCAP,          CAP_SETPCAP,
        CAP_KILL,    CAP_SYS_CHROOT,   CAP_AUDIT_WRITE, CAP_NET_BIND_SERVICE,
    };
    uint64_t set = 0;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        set |= UINT64_C(1) << kept[i];
    }
    struct rlimit files = {1024, 1024};
    must(setrlimit(RLIMIT_NOFILE, &files), "limit");
    umask(022);
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    for (int i = 0; i <= CAP_LAST_CAP; i++) {
        /* A kernel older than these headers knows fewer. */
        if (!(set >> i & 1) && prctl(PR_CAPBSET_DROP, i, 0, 0, 0) && errno != EINVAL) {
            give_up("bounding set");
        }
    }
    must(setgroups(0, NULL), "groups");
    must(setresgid(0, 0, 0), "group");
    must(setresuid(0, 0, 0), "user");
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    uint32_t low = (uint32_t)set, high = (uint32_t)(set >> 32);
    struct __user_cap_data_struct data[2] = {{low, low, 0}, {high, high, 0}};
    must(syscall(SYS_capset, &head, data), "capabilities");
}

void live(void) {
    char *arguments[] = {"sleep", "1000", NULL};
    char *environment[] = {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", NULL,
    };
    char go;
    /* Who holds its other end would never see the end of it. */
    close(all.go[1]);
    join_cgroups();
    become_alone();
    mount_filesystems();
    make_devices();
    hide_paths();
    change_root();
    drop_privileges();
    must(write(all.ready[1], "r", 1), "ready");
    if (read(all.go[0], &go, 1) != 1) {
        _exit(1);
    }
    execve("/bin/sleep", arguments, environment);
    give_up("execute /bin/sleep");
}
