/* tests/kernels/check_memory.c: memory limits of control groups, on folders made to look like a machine. The
 * plugin hides its symbols, so its file is compiled in here. */
#include "plugin/cpu/memory.c"

#include "tests/kernels/suite.h"
#include "tests/support/run.h"

#include <stdlib.h>
#include <sys/stat.h>

static const char *root;

static void make_root(void) {
    root = run_folder();
}

/* A file beneath the root, with the folders that it needs. */
static void put(const char *path, const char *text) {
    char full[4352];
    (void)snprintf(full, sizeof full, "%s%s", root, path);
    for (char *at = full + strlen(root) + 1; (at = strchr(at, '/')) != NULL; *at++ = '/') {
        *at = 0;
        (void)mkdir(full, 0700);
    }
    FILE *file = fopen(full, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fclose(file), 0);
}

static void put_machine(void) {
    put("/proc/meminfo",
        "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:   12000000 kB\n");
}

static void expect(uint64_t total, uint64_t left) {
    cpu_memory memory = {0, 0};
    ck_assert_int_eq(cpu_memory_read(root, &memory), 1);
    ck_assert_uint_eq(memory.total, total);
    ck_assert_uint_eq(memory.free, left);
}

#define KIB(n) ((uint64_t)(n)*1024)
#define V2     "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
#define V1     "33 25 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
#define V1_CPU "34 25 0:30 / /sys/fs/cgroup/cpu rw shared:11 - cgroup cgroup rw,cpu,cpuacct\n"

START_TEST(machine_alone) {
    cpu_memory memory;
    ck_assert_int_eq(cpu_memory_read(root, &memory), 0);
    put_machine();
    expect(KIB(16000000), KIB(12000000));
    put("/proc/meminfo",
        "MemTotal:       16000000 kB\nMemFree:         1000000 kB\n"); /* before Linux 3.14 */
    expect(KIB(16000000), KIB(1000000));
}
END_TEST

START_TEST(version_2_own_group) {
    put_machine();
    put("/proc/self/cgroup", "0::/user.slice/app\n");
    put("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" V2);
    put("/sys/fs/cgroup/user.slice/app/memory.max", "1000000000\n");
    put("/sys/fs/cgroup/user.slice/app/memory.current", "400000000\n");
    expect(1000000000, 600000000);
    put("/sys/fs/cgroup/user.slice/app/memory.stat", "anon 300000000\ninactive_file 50000000\n");
    expect(1000000000, 650000000);
    put("/sys/fs/cgroup/user.slice/app/memory.max", "max\n");
    expect(KIB(16000000), KIB(12000000));
}
END_TEST

/* The lowest limit counts, and the least that any group has left, which may be another's. */
START_TEST(version_2_parents) {
    put_machine();
    put("/proc/self/cgroup", "0::/a/b/c\n");
    put("/proc/self/mountinfo", V2);
    put("/sys/fs/cgroup/a/memory.max", "3000000000\n");
    put("/sys/fs/cgroup/a/memory.current", "2900000000\n");
    put("/sys/fs/cgroup/a/b/memory.max", "2000000000\n");
    put("/sys/fs/cgroup/a/b/memory.current", "500000000\n");
    put("/sys/fs/cgroup/a/b/c/memory.max", "max\n");
    expect(2000000000, 100000000);
    put("/sys/fs/cgroup/a/memory.current", "3100000000\n"); /* above its limit for a moment */
    expect(2000000000, 0);
}
END_TEST

/* In a container's own namespace the path is "/", and the mount's root is the container's group. */
START_TEST(version_2_container) {
    put_machine();
    put("/proc/self/mountinfo", V2);
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/memory.max", "700000000\n");
    put("/sys/fs/cgroup/memory.current", "100000000\n");
    expect(700000000, 600000000);
    put("/proc/self/cgroup", "0::/../other\n"); /* outside of the namespace */
    expect(700000000, 600000000);
    put("/proc/self/cgroup", "0::/docker/1234/inner\n");
    put("/proc/self/mountinfo", "30 23 0:26 /docker/1234 /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
    put("/sys/fs/cgroup/inner/memory.max", "300000000\n");
    expect(300000000, 300000000);
    put("/proc/self/cgroup", "0::/docker/12345/inner\n"); /* only a name's beginning in common */
    expect(700000000, 600000000);
}
END_TEST

START_TEST(version_1_groups) {
    put_machine();
    put("/proc/self/cgroup",
        "5:cpu,cpuacct:/wrong\n4:name=systemd:/wrong\n3:hugetlb,memory:/jobs/one\n0::/unified\n");
    put("/proc/self/mountinfo", V1_CPU V1);
    put("/sys/fs/cgroup/cpu/wrong/memory.limit_in_bytes", "1\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", "5000000000\n");
    put("/sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes", "4000000000\n");
    put("/sys/fs/cgroup/memory/jobs/one/memory.usage_in_bytes", "1500000000\n");
    put("/sys/fs/cgroup/memory/jobs/one/memory.stat", "inactive_file 7\ntotal_inactive_file 500000000\n");
    expect(4000000000, 3000000000);
}
END_TEST

START_TEST(broken_files) {
    put_machine();
    put("/proc/self/cgroup", "garbage\n0:\n0::/a\n");
    put("/proc/self/mountinfo", "garbage - \n - cgroup2\n" V2);
    put("/sys/fs/cgroup/a/memory.max", "");
    put("/sys/fs/cgroup/memory.max", "not a number\n");
    expect(KIB(16000000), KIB(12000000));
}
END_TEST

START_TEST(this_machine) {
    cpu_memory memory;
    ck_assert_int_eq(cpu_memory_read("", &memory), 1);
    ck_assert_uint_gt(memory.total, 0);
    ck_assert_uint_le(memory.free, memory.total);
}
END_TEST

TCase *memory_cases(void) {
    TCase *cases = tcase_create("memory");
    tcase_add_checked_fixture(cases, make_root, NULL);
    tcase_add_test(cases, machine_alone);
    tcase_add_test(cases, version_2_own_group);
    tcase_add_test(cases, version_2_parents);
    tcase_add_test(cases, version_2_container);
    tcase_add_test(cases, version_1_groups);
    tcase_add_test(cases, broken_files);
    tcase_add_test(cases, this_machine);
    return cases;
}
