/* SPDX-License-Identifier: GPL-2.0-only */
/* State records: round trip, malformed ones, and a fuzz loop. */
#include "emul.h"
#include "test.h"

#define BLOB_MAX 65536

/* A guest in the middle of its work, with one of everything. */
static void make_guest(void)
{
    struct vcpu *v0 = guest.vcpu[0], *v1 = guest.vcpu[1];
    unsigned int i;

    guest.vm_assist = 0x11;
    guest.arch.hvm.params[HVM_PARAM_CALLBACK_IRQ] = (2UL << 56) | 0xf3;
    guest.nr_grant_frames = 2;
    guest.shared_info = (void *)1UL;

    guest.evtchn_fifo = &guest;
    guest.nr_fifo = 1;
    guest.fifo_gfn[0] = 40;
    for ( i = 0; i < 2; i++ )
    {
        guest.vcpu[i]->fifo = true;
        guest.vcpu[i]->fifo_control = (50 + i) * PAGE_SIZE + 64;
        guest.vcpu[i]->fifo_tail[7] = 3 + i;
        guest.vcpu[i]->fifo_tail[15] = 300;
        guest.vcpu[i]->arch.hvm.evtchn_upcall_vector = 0xf3;
        guest.vcpu[i]->runstate.time[0] = 111;
        guest.vcpu[i]->runstate.time[3] = 444 + i;
    }

    map_guest_area(v0, 60 * PAGE_SIZE + 128, sizeof(vcpu_info_t),
                   &v0->vcpu_info_area, NULL);
    v0->runstate_guest.p = (void *)0xffff888000001000UL;
    v0->singleshot_timer = (struct timer){ true, 5000 };
    v0->arch.hvm.intr_shadow = 1;
    v0->arch.nmi_pending = true;
    map_guest_area(v1, 61 * PAGE_SIZE, sizeof(vcpu_info_t),
                   &v1->vcpu_info_area, NULL);
    map_guest_area(v1, 62 * PAGE_SIZE, 48, &v1->runstate_guest_area, NULL);
    v1->periodic_period = MILLISECS(10);
    v1->pause_flags = VPF_down;

    guest.evtchn[300].state = ECS_IPI;
    guest.evtchn[300].notify_vcpu_id = 1;
    guest.evtchn[300].priority = 7;
    guest.evtchn[300].fifo_lastq = (1 << 8) | 7;
    guest.evtchn[17].state = ECS_VIRQ;
    guest.evtchn[17].u.virq = VIRQ_TIMER;
    guest.evtchn[18].state = ECS_UNBOUND;
    guest.evtchn[18].pending = true;
}

/* What the toolstack would send: the records, without the HVM context. */
static unsigned int read_state(uint8_t *blob)
{
    const struct xen_kemari_shared *sh;
    struct xen_kemari_sync s;
    const uint8_t *p;
    unsigned int pos = 0, out = 0;

    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 64, 64), 0);
    emul_now = 1000;
    CHECK_EQ(op_sync(HARVEST, &s, NULL), 0);
    CHECK_EQ(s.flags, 0);
    CHECK(s.state_len && !(s.state_len % 8));

    sh = guest.kemari->shared;
    p = (const uint8_t *)sh + sh->state_off;
    while ( pos < s.state_len )
    {
        const struct xen_kemari_rec *rec = (const void *)(p + pos);
        unsigned int len = sizeof(*rec) + ROUNDUP(rec->length, 8);

        CHECK(len <= s.state_len - pos);
        if ( rec->type == XEN_KEMARI_REC_END )
            CHECK_EQ(pos + len, s.state_len);
        for ( unsigned int i = rec->length; i % 8; i++ )
            CHECK_EQ(((const uint8_t *)(rec + 1))[i], 0);
        if ( rec->type == XEN_KEMARI_REC_HVM )
            CHECK_EQ(rec->length, 996);
        else
        {
            CHECK(out + len <= BLOB_MAX);
            memcpy(blob + out, p + pos, len);
            out += len;
        }
        pos += len;
    }

    return out;
}

static void make_shell(void)
{
    emul_init();
    memset(&guest.evtchn[3], 0, sizeof(guest.evtchn[0]) * 14);
    for ( unsigned int i = 3; i < 17; i++ )
        guest.evtchn[i].port = i;
    guest.pause_count = guest.controller_pause_count = 1;
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_SECONDARY, 0, 0), 0);
}

static int set_state(const void *blob, unsigned int size)
{
    struct xen_domctl_kemari_op o = {
        .op = XEN_KEMARI_OP_set_state,
        .u.state = { .buffer.p = blob, .size = size },
    };

    return kemari_domctl(&guest, &o);
}

static uint8_t valid[BLOB_MAX];
static unsigned int valid_len;

static void *record(uint8_t *blob, unsigned int type, unsigned int instance)
{
    struct xen_kemari_rec *rec = (void *)blob;

    while ( rec->type != type || rec->instance != instance )
    {
        CHECK(rec->type != XEN_KEMARI_REC_END);
        rec = (void *)rec + sizeof(*rec) + ROUNDUP(rec->length, 8);
    }

    return rec + 1;
}

static void round_trip(void)
{
    static struct domain old;
    unsigned int i;

    make_guest();
    valid_len = read_state(valid);
    old = guest;
    emul_destroy();

    make_shell();
    /* The other host has been up for less time, and takes over late. */
    emul_now = 200;
    guest.arch.hvm.sync_tsc = guest.arch.hvm.load_tsc =
        guest.arch.hvm.load_stime = 150;
    guest.vcpu[0]->info.evtchn_upcall_pending = 1;
    CHECK_EQ(set_state(valid, valid_len), 0);
    /* Nothing fires into a frozen domain. */
    CHECK(!guest.vcpu[0]->singleshot_timer.active);
    CHECK(!guest.vcpu[1]->periodic_period);
    emul_now = 300;
    CHECK_EQ(op(XEN_KEMARI_OP_resume, 0), 0);

    CHECK_EQ(guest.vm_assist, old.vm_assist);
    CHECK_EQ(guest.arch.hvm.params[HVM_PARAM_CALLBACK_IRQ], (2UL << 56) | 0xf3);
    CHECK_EQ(guest.arch.hvm.callback_via, (2UL << 56) | 0xf3);
    CHECK_EQ(guest.nr_fifo, old.nr_fifo);
    CHECK_EQ(guest.fifo_gfn[0], old.fifo_gfn[0]);
    for ( i = 0; i < 2; i++ )
    {
        struct vcpu *v = guest.vcpu[i], *o = &old.vcpus[i];

        CHECK_EQ(v->fifo_control, o->fifo_control);
        CHECK(!memcmp(v->fifo_tail, o->fifo_tail, sizeof(v->fifo_tail)));
        CHECK(v->vcpu_info_area.pg == o->vcpu_info_area.pg);
        CHECK(v->vcpu_info_area.map == o->vcpu_info_area.map);
        CHECK(v->runstate_guest_area.pg == o->runstate_guest_area.pg);
        CHECK(v->runstate_guest.p == o->runstate_guest.p);
        CHECK(v->arch.time_guest_area.pg == o->arch.time_guest_area.pg);
        CHECK_EQ(v->arch.hvm.evtchn_upcall_vector, 0xf3);
        CHECK_EQ(v->arch.hvm.intr_shadow, o->arch.hvm.intr_shadow);
        CHECK_EQ(v->arch.nmi_pending, o->arch.nmi_pending);
        CHECK(!memcmp(v->runstate.time, o->runstate.time,
                      sizeof(v->runstate.time)));
        CHECK_EQ(v->periodic_period, o->periodic_period);
        CHECK_EQ(v->singleshot_timer.active, o->singleshot_timer.active);
        CHECK_EQ(v->upcalls, !i);
    }

    /* 1000 then is 300 now: the guest did not see the time between. */
    CHECK_EQ(guest.arch.hvm.stime_delta, 700);
    CHECK_EQ(guest.vcpu[0]->singleshot_timer.expires, 4300);

    for ( i = 1; i < EMUL_PORTS; i++ )
    {
        struct evtchn *c = &guest.evtchn[i], *o = &old.evtchn[i];

        if ( o->xen_consumer )
            continue;
        CHECK(c->state == o->state ||
              (c->state == ECS_UNBOUND && o->state == ECS_INTERDOMAIN));
        if ( o->state == ECS_FREE )
            continue;
        CHECK_EQ(c->notify_vcpu_id, o->notify_vcpu_id);
        CHECK_EQ(c->priority, o->priority);
        CHECK_EQ(c->pending, o->pending);
        CHECK_EQ(c->fifo_lastq, o->fifo_lastq);
        /* Everything whose peer may have been lost was raised. */
        CHECK_EQ(c->raised, o->state != ECS_IPI);
    }
    CHECK_EQ(guest.pause_count, 1);
}

/* Event channels to others than the toolstack cannot be held. */
static void foreign_channel(void)
{
    struct xen_kemari_sync s;

    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 64, 64), 0);
    CHECK_EQ(op_sync(HARVEST, &s, NULL), 0);
    CHECK_EQ(s.flags, 0);
    CHECK_EQ(op_release(OUT | UNPAUSE, s.epoch), 0);

    guest.evtchn[18].state = ECS_UNBOUND;
    guest.evtchn[18].u.unbound.remote_domid = 5;
    CHECK_EQ(op_sync(HARVEST, &s, NULL), 0);
    CHECK_EQ(s.flags, XEN_KEMARI_LOST);
}

/* The list of pages has room for so many grant frames. */
static void too_many_grant_frames(void)
{
    guest.max_grant_frames = 4097;
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 64, 64), -EOPNOTSUPP);
    guest.max_grant_frames = 4096;
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 64, 64), 0);
}

/* With the two level ABI; and with a FIFO that has no pages as yet. */
static void early_boot(void)
{
    static uint8_t blob[BLOB_MAX];
    unsigned int len, fifo;

    for ( fifo = 0; fifo < 2; fifo++ )
    {
        if ( fifo )
        {
            struct evtchn_init_control ic = { .control_gfn = 50 };

            CHECK_EQ(evtchn_fifo_init_control(&guest, &ic), 0);
        }
        len = read_state(blob);
        emul_destroy();

        make_shell();
        CHECK_EQ(set_state(blob, len), 0);
        CHECK_EQ(!!guest.evtchn_fifo, fifo);
        CHECK_EQ(op(XEN_KEMARI_OP_resume, 0), 0);
        emul_destroy();
        emul_init();
    }
}

/* A guest may have asked for a tick at the end of time. */
static void far_timer(void)
{
    static uint8_t blob[BLOB_MAX];
    unsigned int len;

    guest.arch.hvm.stime_delta = 1000;
    guest.vcpu[0]->singleshot_timer = (struct timer){ true, INT64_MAX };
    len = read_state(blob);
    emul_destroy();

    make_shell();
    CHECK_EQ(set_state(blob, len), 0);
    emul_now = 1L << 56;
    CHECK_EQ(op(XEN_KEMARI_OP_resume, 0), 0);
    CHECK(guest.vcpu[0]->singleshot_timer.active);
    CHECK(guest.vcpu[0]->singleshot_timer.expires > 1L << 60);
}

/* A malformed record: the right error, and nothing of it has happened. */
static int try(const uint8_t *blob, unsigned int len)
{
    static struct domain before, after;
    int rc;

    make_shell();
    before = guest;
    rc = set_state(blob, len);
    after = guest;
    if ( rc == -EINVAL || rc == -EOPNOTSUPP )
        CHECK(!memcmp(&before, &after, sizeof(before)));
    if ( rc )
        CHECK_EQ(op(XEN_KEMARI_OP_resume, 0), -EINVAL);
    emul_destroy();

    return rc;
}

/* The records are in blob for each, changed by stmt. */
#define BAD(err, stmt) do {                                                  \
    memcpy(blob, valid, valid_len);                                          \
    len = valid_len;                                                         \
    { stmt; }                                                                \
    rc_ = try(blob, len);                                                    \
    if ( rc_ != (err) )                                                      \
    {                                                                        \
        fprintf(stderr, "%s:%d: %s: %d, not " #err "\n", __FILE__, __LINE__, \
                #stmt, rc_);                                                 \
        bad++;                                                               \
    }                                                                        \
} while ( 0 )

#define REC(t, n) ((void *)record(blob, XEN_KEMARI_REC_##t, n))
#define DOM     ((struct xen_kemari_domain *)REC(DOMAIN, 0))
#define VCPU(n) ((struct xen_kemari_vcpu *)REC(VCPU, n))
#define EVTCHN  ((struct xen_kemari_evtchn *)REC(EVTCHN, 0))
#define FIFO    ((uint64_t *)REC(FIFO, 0))
#define HDR(p) ((struct xen_kemari_rec *)(p) - 1)
#define END    ((struct xen_kemari_rec *)(blob + len) - 1)

static void malformed(void)
{
    static uint8_t blob[BLOB_MAX];
    unsigned int len, bad = 0, i;
    int rc_;

    emul_destroy();

    BAD(0, );

    /* The whole. */
    for ( i = 1; i < valid_len; i++ )
        BAD(-EINVAL, len = i);
    BAD(-EINVAL, len += 8);
    BAD(-EINVAL, END->length = 8);
    BAD(-EINVAL, END->length = 8; len += 8);
    BAD(-EINVAL, END->type = XEN_KEMARI_REC_FIFO);
    BAD(-EOPNOTSUPP, HDR(FIFO)->type = XEN_KEMARI_REC_HVM);
    BAD(-EOPNOTSUPP, HDR(FIFO)->type = 0x1234);
    BAD(-EINVAL, HDR(DOM)->length = ~0U);
    BAD(-EINVAL, HDR(DOM)->length = ~0U - 7);
    BAD(-EINVAL, HDR(DOM)->length = 0x80000000);
    BAD(-EINVAL, HDR(EVTCHN)->length = ~0U - 15);

    /* DOMAIN */
    BAD(-EINVAL, HDR(DOM)->length--);
    BAD(-EINVAL, DOM->version++);
    BAD(-EINVAL, DOM->nr_vcpus++);
    BAD(-EINVAL, DOM->nr_vcpus = 1);
    BAD(-EINVAL, DOM->evtchn_abi = 2);
    BAD(-EINVAL, DOM->evtchn_abi = 4);
    BAD(-EINVAL, DOM->vm_assist = 1UL << 40);
    BAD(-EINVAL, DOM->guest_time = ~0UL);
    BAD(-EINVAL, HDR(DOM)->type = XEN_KEMARI_REC_EVTCHN);

    /* VCPU */
    BAD(-EINVAL, HDR(VCPU(1))->length -= 8);
    BAD(-EINVAL, HDR(VCPU(1))->instance = 0);
    BAD(-EINVAL, HDR(VCPU(1))->instance = 2);
    BAD(-EINVAL, HDR(VCPU(1))->instance = 0xffff);
    BAD(-EINVAL, VCPU(1)->flags = 1U << 31);
    BAD(-EINVAL, VCPU(1)->upcall_vector = 15);
    BAD(-EINVAL, VCPU(1)->periodic_period = 1);
    BAD(-EINVAL, VCPU(1)->periodic_period = ~0UL);
    BAD(-EINVAL, VCPU(0)->sshot_expires = ~0UL);
    BAD(-EINVAL, VCPU(0)->fifo_tail[3] = XEN_KEMARI_MAX_PORTS);
    /* There is one page of event words: the next has none to link to. */
    BAD(-EINVAL, VCPU(0)->fifo_tail[3] = PAGE_SIZE / 4);

    /* FIFO */
    BAD(-EINVAL, HDR(FIFO)->length = 7);
    BAD(-EINVAL, HDR(FIFO)->length = 4);

    /* EVTCHN */
    BAD(-EINVAL, HDR(EVTCHN)->length -= 8);
    BAD(-EINVAL, EVTCHN[0].port = 0);
    BAD(-EINVAL, EVTCHN[1].port = EVTCHN[0].port);
    BAD(-EINVAL, EVTCHN[0].port = EVTCHN[1].port);
    BAD(-EINVAL, EVTCHN[18].port = XEN_KEMARI_MAX_PORTS);
    BAD(-EINVAL, EVTCHN[18].port = ~0U);
    BAD(-EINVAL, EVTCHN[3].vcpu = 2);
    BAD(-EINVAL, EVTCHN[3].lastq_vcpu = 0xffff);
    BAD(-EINVAL, EVTCHN[3].priority = 16);
    BAD(-EINVAL, EVTCHN[3].lastq_priority = 255);
    BAD(-EINVAL, EVTCHN[3].pending = 2);

    /* Found only when it is carried out: the domain is to be destroyed. */
    BAD(-EEXIST, EVTCHN[1].status = EVTCHNSTAT_ipi);
    BAD(-EXDEV, VCPU(0)->vcpu_info = (uint64_t)EMUL_GFNS << PAGE_SHIFT);
    BAD(-ENXIO, VCPU(0)->vcpu_info += 4095 - 128);

    CHECK_EQ(bad, 0);
    emul_init();
}

/* Fields worth more than a random byte. */
static uint64_t interesting(uint64_t *seed)
{
    static const uint64_t v[] = {
        0, 1, 2, 7, 8, 15, 16, 255, 1023, 1024, 4095, 4096, 0x7fff, 0x7ff0,
        0xffff, 0x7fffffff, 0x80000000, 0xfffffff8, 0xffffffff,
        0x3fffffffffffffff, 0x4000000000000000, 0x7fffffffffffffff,
        0x8000000000000000, ~0UL,
    };

    return v[rnd(seed) % ARRAY_SIZE(v)];
}

static void fuzz(void)
{
    const char *n = getenv("FUZZ");
    unsigned int i, rounds = n && *n ? atoi(n) : 400000, ok = 0;
    uint64_t seed = 0x4b454d415249;

    emul_destroy();

    for ( i = 0; i < rounds; i++ )
    {
        unsigned int len = valid_len, m, nr = 1 + rnd(&seed) % 4;
        uint8_t *blob = calloc(1, BLOB_MAX);
        int rc;

        memcpy(blob, valid, len);
        for ( m = 0; m < nr; m++ )
        {
            unsigned int at = rnd(&seed) % len;
            uint64_t val = interesting(&seed);

            switch ( rnd(&seed) % 7 )
            {
            case 0:
                blob[at] ^= 1U << (rnd(&seed) % 8);
                break;
            case 1:
                at &= ~3U;
                memcpy(blob + at, &val, min(4U, len - at));
                break;
            case 2:
                at &= ~7U;
                memcpy(blob + at, &val, min(8U, len - at));
                break;
            case 3:
                /* A part of it, somewhere else. */
                at &= ~7U;
                memmove(blob + at, blob + (rnd(&seed) % len & ~7U),
                        min(64U, BLOB_MAX - at - 64));
                break;
            case 4:
                len = 1 + rnd(&seed) % len;
                break;
            case 5:
                len = min(len + (unsigned int)(rnd(&seed) % 64), 60000U);
                break;
            case 6:
                blob[at] = rnd(&seed);
                break;
            }
        }

        make_shell();
        emul_now = guest.arch.hvm.sync_tsc = rnd(&seed) >> 8;
        rc = set_state(blob, len);
        CHECK(rc == 0 || rc == -EINVAL || rc == -EOPNOTSUPP || rc == -EEXIST ||
              rc == -EXDEV || rc == -ENXIO || rc == -ENOSPC || rc == -EBUSY);
        if ( !rc )
        {
            ok++;
            CHECK_EQ(op(XEN_KEMARI_OP_resume, 0), 0);
            CHECK_EQ(guest.pause_count, 1);
        }
        emul_destroy();
        free(blob);
    }

    printf("   %u of %u accepted\n", ok, rounds);
    emul_init();
}

/* What the copy could not do as well is refused, and lost if it comes later. */
static void refused(void)
{
    bool *flag[] = {
        &guest.ioreq_server, &guest.mem_paging, &guest.vcpu[1]->arch.vpmu,
    };
    void **ptr[] = { &guest.vm_event_monitor, &guest.argo };
    struct xen_kemari_sync s;
    unsigned int i, nr = ARRAY_SIZE(flag) + ARRAY_SIZE(ptr) + 1;

    for ( i = 0; i < 2 * nr; i++ )
    {
        unsigned int what = i / 2;

        /* Before it, or after. */
        if ( i & 1 )
            CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 64, 64), 0);

        if ( what < ARRAY_SIZE(flag) )
            *flag[what] = true;
        else if ( what < nr - 1 )
            *ptr[what - ARRAY_SIZE(flag)] = &guest;
        else
            guest.p2m.default_access = p2m_access_rx;

        if ( i & 1 )
        {
            CHECK_EQ(op_sync(HARVEST, &s, NULL), 0);
            CHECK_EQ(s.flags, XEN_KEMARI_LOST);
            CHECK_EQ(op(XEN_KEMARI_OP_disable, 0), 0);
        }
        else
            CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 64, 64), -EOPNOTSUPP);

        if ( what < ARRAY_SIZE(flag) )
            *flag[what] = false;
        else if ( what < nr - 1 )
            *ptr[what - ARRAY_SIZE(flag)] = NULL;
        else
            guest.p2m.default_access = p2m_access_rwx;
    }
}

/* A page that Xen has mapped and that the guest has not any more. */
static void removed_page(void)
{
    /* Event array, control blocks, vcpu_info, runstate and time areas. */
    static const unsigned long gfn[] = { 40, 50, 51, 60, 61, 62, 63 };
    struct xen_kemari_sync s;
    unsigned int i;

    make_guest();
    map_guest_area(guest.vcpu[1], 63 * PAGE_SIZE, 32,
                   &guest.vcpu[1]->arch.time_guest_area, NULL);
    for ( i = 0; i < ARRAY_SIZE(gfn); i++ )
    {
        CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 64, 64), 0);
        emul_removed_gfn = gfn[i];
        CHECK_EQ(op_sync(HARVEST, &s, NULL), 0);
        CHECK_EQ(s.flags, XEN_KEMARI_LOST);
        CHECK_EQ(s.state_len, 0);
        CHECK_EQ(op(XEN_KEMARI_OP_disable, 0), 0);
    }

    emul_removed_gfn = 64;
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 64, 64), 0);
    CHECK_EQ(op_sync(HARVEST, &s, NULL), 0);
    CHECK_EQ(s.flags, 0);
}

int main(void)
{
    RUN(round_trip);
    RUN(refused);
    RUN(removed_page);
    RUN(foreign_channel);
    RUN(too_many_grant_frames);
    RUN(early_boot);
    RUN(far_timer);
    RUN(malformed);
    RUN(fuzz);

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
