/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef TEST_H
#define TEST_H

#include <inttypes.h>

#define CHECK(x) do {                                                        \
    if ( !(x) )                                                              \
    {                                                                        \
        fprintf(stderr, "%s:%d: %s: failed: %s\n", __FILE__, __LINE__,       \
                __func__, #x);                                               \
        exit(1);                                                             \
    }                                                                        \
} while ( 0 )

#define CHECK_EQ(a, b) do {                                                  \
    long long a_ = (a), b_ = (b);                                            \
    if ( a_ != b_ )                                                          \
    {                                                                        \
        fprintf(stderr, "%s:%d: %s: %s is %lld, not %lld (%s)\n",            \
                __FILE__, __LINE__, __func__, #a, a_, b_, #b);               \
        exit(1);                                                             \
    }                                                                        \
} while ( 0 )

#define RUN(t) do {                                                          \
    emul_init();                                                             \
    t();                                                                     \
    emul_destroy();                                                          \
    printf("ok %s\n", #t);                                                   \
} while ( 0 )

/* xorshift64*: the same on every machine. */
static inline uint64_t rnd(uint64_t *seed)
{
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return *seed * 0x2545f4914f6cdd1dULL;
}

/* The operations, as the toolstack calls them. */

static inline int op(unsigned int nr, unsigned int flags)
{
    struct xen_domctl_kemari_op o = { .op = nr, .flags = flags };

    return kemari_domctl(&guest, &o);
}

static inline int op_enable(unsigned int role, unsigned int max,
                            unsigned int mark)
{
    struct xen_domctl_kemari_op o = {
        .op = XEN_KEMARI_OP_enable,
        .u.enable = {
            .version = XEN_KEMARI_VERSION, .role = role,
            .dirty_max = max, .dirty_mark = mark,
        },
    };

    return kemari_domctl(&guest, &o);
}

static inline int op_tap(evtchn_port_t port, unsigned int mode)
{
    struct xen_domctl_kemari_op o = {
        .op = XEN_KEMARI_OP_tap, .u.tap = { .port = port, .mode = mode },
    };

    return kemari_domctl(&guest, &o);
}

/* As privcmd does it: again until it is done.  Returns how often in again. */
static inline int op_sync(unsigned int flags, struct xen_kemari_sync *s,
                          unsigned int *again)
{
    struct xen_domctl_kemari_op o = {
        .op = XEN_KEMARI_OP_sync, .flags = flags,
    };
    unsigned int n = 0;
    int rc;

    while ( (rc = kemari_domctl(&guest, &o)) == -ERESTART )
        n++;

    if ( s )
        *s = o.u.sync;
    if ( again )
        *again = n;

    return rc;
}

static inline uint64_t harvest(void)
{
    struct xen_kemari_sync s;

    CHECK_EQ(op_sync(XEN_KEMARI_SYNC_HARVEST, &s, NULL), 0);

    return s.epoch;
}

static inline int op_release(unsigned int flags, uint64_t epoch)
{
    struct xen_domctl_kemari_op o = {
        .op = XEN_KEMARI_OP_release, .flags = flags,
        .u.release = { .epoch = epoch },
    };

    return kemari_domctl(&guest, &o);
}

static inline struct xen_kemari_status op_status(void)
{
    struct xen_domctl_kemari_op o = { .op = XEN_KEMARI_OP_status };

    CHECK_EQ(kemari_domctl(&guest, &o), 0);

    return o.u.status;
}

#define OUT     XEN_KEMARI_RELEASE_OUT
#define UNPAUSE XEN_KEMARI_RELEASE_UNPAUSE
#define HARVEST XEN_KEMARI_SYNC_HARVEST

/* arch-stub.c */
extern bool stub_starting_vcpu;
extern int stub_check, stub_save, stub_restore;

#endif
