/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guest's clocks, from host to host: they stand still while it is away, and
 * never go back.  On a host they run on through a pause.
 *
 * make broken breaks the code under test, and expects this to notice.
 */
#include "emul.h"
#include "test.h"

#define BLOB_MAX 65536

/* What a guest can tell the time by. */
struct clocks {
    s_time_t system_time;
    uint64_t tsc[2];
    s_time_t expires;      /* of a timer, in the guest's system time */
    uint64_t runstate[2][4];
};

static void read_clocks(struct clocks *c)
{
    unsigned int i;

    memset(c, 0, sizeof(*c));
    c->system_time = NOW() + guest.arch.hvm.stime_delta;
    c->expires = guest.vcpu[0]->singleshot_timer.expires +
                 guest.arch.hvm.stime_delta;
    for ( i = 0; i < 2; i++ )
    {
        c->tsc[i] = NOW() + guest.vcpu[i]->arch.hvm.cache_tsc_offset;
        memcpy(c->runstate[i], guest.vcpu[i]->runstate.time,
               sizeof(c->runstate[i]));
    }
}

static void check_clocks(const struct clocks *then, s_time_t passed)
{
    struct clocks now;
    unsigned int i;

    read_clocks(&now);
    CHECK_EQ(now.system_time, then->system_time + passed);
    CHECK_EQ(now.expires, then->expires);
    for ( i = 0; i < 2; i++ )
    {
        CHECK_EQ(now.tsc[i], then->tsc[i] + passed);
        CHECK(!memcmp(now.runstate[i], then->runstate[i],
                      sizeof(now.runstate[i])));
    }
}

/* An emulated TSC, as on hosts where it differs from CPU to CPU. */
static bool vtsc;

static uint8_t blob[BLOB_MAX];
static unsigned int blob_len;

/* What goes to the other host: the records without the HVM context. */
static void keep_state(unsigned int state_len)
{
    const struct xen_kemari_shared *sh = guest.kemari->shared;
    const uint8_t *p = (const uint8_t *)sh + sh->state_off;
    unsigned int pos, len;

    blob_len = 0;
    for ( pos = 0; pos < state_len; pos += len )
    {
        const struct xen_kemari_rec *rec = (const void *)(p + pos);

        len = sizeof(*rec) + ROUNDUP(rec->length, 8);
        if ( rec->type == XEN_KEMARI_REC_HVM )
            continue;
        CHECK(blob_len + len <= BLOB_MAX);
        memcpy(blob + blob_len, p + pos, len);
        blob_len += len;
    }
}

static void sync_guest(void)
{
    struct xen_kemari_sync s;

    CHECK_EQ(op_sync(HARVEST, &s, NULL), 0);
    keep_state(s.state_len);
}

static void guest_works(void)
{
    unsigned int i;

    for ( i = 0; i < 2; i++ )
    {
        guest.vcpu[i]->runstate.time[0] += 1000 + i;  /* running */
        guest.vcpu[i]->runstate.time[1] += 30 + i;    /* stolen */
    }
}

static void boot(void)
{
    emul_now = 1000000;
    guest.vcpu[0]->arch.hvm.cache_tsc_offset = -500000;
    guest.vcpu[1]->arch.hvm.cache_tsc_offset = -499990;
    guest.vcpu[0]->singleshot_timer = (struct timer){ true, 90000000 };
    guest_works();
}

/*
 * A host that has been up for so long takes over what the last sync saw.  Each
 * step takes time there, which is not the guest's.
 */
static void take_over(s_time_t uptime, const struct clocks *then)
{
    struct xen_domctl_kemari_op o = {
        .op = XEN_KEMARI_OP_set_state,
        .u.state = { .buffer.p = blob, .size = blob_len },
    };
    unsigned int i;

    emul_destroy();
    emul_init();
    memset(&guest.evtchn[3], 0, sizeof(guest.evtchn[0]) * 14);
    for ( i = 3; i < 17; i++ )
        guest.evtchn[i].port = i;
    guest.pause_count = guest.controller_pause_count = 1;
    emul_now = uptime;
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_SECONDARY, 0, 0), 0);

    /* hvm_load() */
    emul_now += 70000;
    guest.arch.vtsc = vtsc;
    emul_tsc_skew = vtsc ? 800 : 0;
    guest.arch.hvm.sync_tsc = guest.arch.hvm.load_tsc = rdtsc();
    guest.arch.hvm.load_stime = emul_now;
    for ( i = 0; i < 2; i++ )
        guest.vcpu[i]->arch.hvm.cache_tsc_offset = then->tsc[i] - emul_now;

    emul_now += 5000;
    CHECK_EQ(kemari_domctl(&guest, &o), 0);

    emul_now += 300000;
    /* On another physical CPU, whose TSC is not the same. */
    emul_tsc_skew = vtsc ? 90000 : 0;
    CHECK_EQ(op(XEN_KEMARI_OP_resume, 0), 0);
}

static void failovers(void)
{
    static const s_time_t uptime[] = { 20, 7000000000, 1L << 50, 400 };
    struct clocks then;
    unsigned int i, j;

    boot();
    for ( i = 0; i < ARRAY_SIZE(uptime); i++ )
    {
        CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 64, 64), 0);
        sync_guest();
        read_clocks(&then);
        /* The host dies some time after its last sync. */
        emul_now += 12345;
        take_over(uptime[i], &then);
        check_clocks(&then, 0);
        /* The time it was away is nobody's: not stolen either. */
        for ( j = 0; j < 2; j++ )
            CHECK_EQ(guest.vcpu[j]->runstate.state_entry_time, NOW());

        emul_now += 1000;
        check_clocks(&then, 1000);
        guest_works();
    }
}

static void failovers_vtsc(void)
{
    vtsc = true;
    failovers();
    vtsc = false;
}

static void pauses(void)
{
    struct clocks then;
    unsigned int i;

    boot();
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 64, 64), 0);
    for ( i = 1; i <= 3; i++ )
    {
        read_clocks(&then);
        sync_guest();
        emul_now += 4000000;
        CHECK_EQ(op_release(OUT | UNPAUSE, i), 0);
        check_clocks(&then, 4000000);
        guest_works();
    }
    CHECK_EQ(op(XEN_KEMARI_OP_disable, 0), 0);
}

int main(void)
{
    RUN(failovers);
    RUN(failovers_vtsc);
    RUN(pauses);

    return 0;
}

/*
 * Local variables:
 * mode: C
 * c-file-style: "BSD"
 * c-basic-offset: 4
 * indent-tabs-mode: nil
 * End:
 */
