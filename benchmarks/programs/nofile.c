/* Preloaded where a high limit can't be set: getrlimit and sysconf report BENCH_NOFILE. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static rlim_t wanted(void) {
    const char *text = getenv("BENCH_NOFILE");
    return text ? strtoull(text, 0, 10) : 0;
}

#define STAND_IN(NAME, TYPE)                                                        \
    int NAME(__rlimit_resource_t resource, TYPE *limit) {                           \
        int (*real)(__rlimit_resource_t, TYPE *) = dlsym(RTLD_NEXT, #NAME);         \
        int result = real(resource, limit);                                         \
        if (!result && resource == RLIMIT_NOFILE && wanted())                       \
            limit->rlim_cur = limit->rlim_max = wanted();                           \
        return result;                                                              \
    }
STAND_IN(getrlimit, struct rlimit)
STAND_IN(getrlimit64, struct rlimit64)

long sysconf(int name) {
    long (*real)(int) = dlsym(RTLD_NEXT, "sysconf");
    return name == _SC_OPEN_MAX && wanted() ? (long)wanted() : real(name);
}
