/* SPDX-License-Identifier: GPL-2.0-only */
/* Events sent by the guest, and to it. */
#include "emul.h"
#include "test.h"

static struct xen_kemari_shared *protect(void)
{
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 1024, 1000), 0);
    CHECK_EQ(guest.pause_count, 0);
    return guest.kemari->shared;
}

static void hold_and_trigger(void)
{
    struct xen_kemari_shared *s = protect();

    emul_now = 1234;
    emul_send(5);
    CHECK_EQ(guest.evtchn[5].sent, 0);
    CHECK_EQ(guest.pause_count, 1);
    CHECK_EQ(guest.notified, 1);
    CHECK_EQ(s->trigger_reason, XEN_KEMARI_TRIGGER_EVENT);
    CHECK_EQ(s->trigger_port, 5);
    CHECK_EQ(s->t_trigger, 1234);
    CHECK_EQ(op_status().state, XEN_KEMARI_TRIGGERED | XEN_KEMARI_HELD);
}

static void trigger_once(void)
{
    struct xen_kemari_shared *s = protect();

    emul_send(5);
    /* Another vCPU, before its IPI; and the same again. */
    emul_send(6);
    emul_send(5);
    CHECK_EQ(guest.pause_count, 1);
    CHECK_EQ(guest.notified, 1);
    CHECK_EQ(s->trigger_port, 5);
    CHECK_EQ(guest.evtchn[6].sent, 0);
}

static void pass(void)
{
    struct xen_kemari_shared *s = protect();

    CHECK_EQ(op_tap(3, XEN_KEMARI_TAP_PASS), 0);
    emul_send(3);
    CHECK_EQ(guest.evtchn[3].sent, 1);
    CHECK_EQ(guest.pause_count, 0);
    CHECK_EQ(guest.notified, 0);

    harvest();
    CHECK_EQ(s->used[0], 1UL << 3);
    CHECK_EQ(op_release(OUT | UNPAUSE, 1), 0);

    harvest();
    CHECK_EQ(s->used[0], 0);
    CHECK_EQ(op_release(OUT | UNPAUSE, 2), 0);

    CHECK_EQ(op_tap(3, XEN_KEMARI_TAP_HOLD), 0);
    emul_send(3);
    CHECK_EQ(guest.evtchn[3].sent, 1);
    CHECK_EQ(guest.pause_count, 1);
}

static void tap_errors(void)
{
    protect();
    CHECK_EQ(op_tap(EMUL_PORTS, XEN_KEMARI_TAP_PASS), -EINVAL);
    CHECK_EQ(op_tap(~0U, XEN_KEMARI_TAP_PASS), -EINVAL);
    CHECK_EQ(op_tap(40, XEN_KEMARI_TAP_PASS), -EINVAL); /* free */
    CHECK_EQ(op_tap(3, XEN_KEMARI_TAP_PASS + 1), -EINVAL);
}

/* A port used anew starts as hold, without what its predecessor has sent. */
static void close_forgets(void)
{
    protect();
    CHECK_EQ(op_tap(3, XEN_KEMARI_TAP_PASS), 0);
    emul_send(4);
    evtchn_close(&guest, 3);
    evtchn_close(&guest, 4);
    guest.evtchn[3].state = guest.evtchn[4].state = ECS_INTERDOMAIN;

    emul_send(3);
    CHECK_EQ(guest.evtchn[3].sent, 0);

    CHECK_EQ(op_release(OUT | UNPAUSE, harvest()), 0);
    CHECK_EQ(guest.evtchn[3].sent, 1);
    CHECK_EQ(guest.evtchn[4].sent, 0);
}

/* Output leaves before the guest runs, each event once. */
static void release_order(void)
{
    unsigned int i;

    protect();
    emul_send(9);
    emul_send(2);
    emul_send(9);
    harvest();
    CHECK_EQ(emul_log_nr, 0);
    CHECK_EQ(op_release(OUT | UNPAUSE, 1), 0);
    CHECK_EQ(emul_log_nr, 2);
    CHECK_EQ(guest.evtchn[9].sent, 1);
    CHECK_EQ(guest.evtchn[2].sent, 1);
    CHECK_EQ(guest.pause_count, 0);
    CHECK_EQ(op_status().state, 0);

    for ( i = 2; i < 20; i++ )
    {
        emul_send(9);
        CHECK_EQ(harvest(), i);
        CHECK_EQ(op_release(OUT | UNPAUSE, i), 0);
        CHECK_EQ(guest.evtchn[9].sent, i);
    }
}

static void freeze_only(void)
{
    struct xen_kemari_sync s;

    protect();
    emul_send(5);
    CHECK_EQ(op_sync(0, &s, NULL), 0);
    CHECK_EQ(s.epoch, 0);
    CHECK_EQ(op_status().state & (XEN_KEMARI_FROZEN | XEN_KEMARI_HARVESTED),
             XEN_KEMARI_FROZEN);
    /* Without a harvest there is nothing that could be committed later. */
    CHECK_EQ(op_release(UNPAUSE, 0), -EINVAL);
    CHECK_EQ(op_release(OUT | UNPAUSE, 0), 0);
    CHECK_EQ(guest.evtchn[5].sent, 1);
    CHECK_EQ(guest.pause_count, 0);

    /* Freeze, look, then harvest. */
    emul_send(5);
    CHECK_EQ(op_sync(0, NULL, NULL), 0);
    CHECK_EQ(op_sync(0, NULL, NULL), 0);
    CHECK_EQ(harvest(), 1);
    CHECK_EQ(op_release(OUT | UNPAUSE, 1), 0);
    CHECK_EQ(guest.evtchn[5].sent, 2);
    CHECK_EQ(guest.pause_count, 0);
}

static void uncommitted(void)
{
    struct xen_kemari_shared *s = protect();

    emul_send(5);
    harvest();
    CHECK_EQ(op_release(UNPAUSE, 1), 0);
    CHECK_EQ(guest.pause_count, 0);
    CHECK_EQ(guest.evtchn[5].sent, 0);
    CHECK(op_status().state & XEN_KEMARI_UNCOMMITTED);

    /* Held, but the guest goes on. */
    emul_send(6);
    emul_send(5);
    CHECK_EQ(guest.pause_count, 0);
    CHECK_EQ(guest.notified, 1);
    CHECK_EQ(guest.evtchn[6].sent, 0);

    /* One epoch at a time. */
    CHECK_EQ(op_sync(HARVEST, NULL, NULL), -EBUSY);
    CHECK_EQ(op_sync(0, NULL, NULL), -EBUSY);
    CHECK_EQ(guest.pause_count, 0);

    /* The commit: what was sent before it, and no more. */
    CHECK_EQ(op_release(OUT, 1), 0);
    CHECK_EQ(guest.evtchn[5].sent, 1);
    CHECK_EQ(guest.evtchn[6].sent, 0);
    CHECK_EQ(guest.pause_count, 1);
    CHECK_EQ(guest.notified, 2);
    CHECK_EQ(s->trigger_reason, XEN_KEMARI_TRIGGER_HELD);

    CHECK_EQ(op_release(OUT | UNPAUSE, harvest()), 0);
    CHECK_EQ(guest.evtchn[5].sent, 2);
    CHECK_EQ(guest.evtchn[6].sent, 1);
    CHECK_EQ(guest.pause_count, 0);

    /* Nothing more was held: the commit does not stop the guest. */
    emul_send(5);
    CHECK_EQ(op_release(UNPAUSE, harvest()), 0);
    CHECK_EQ(op_release(OUT, 3), 0);
    CHECK_EQ(guest.evtchn[5].sent, 3);
    CHECK_EQ(guest.pause_count, 0);
    CHECK_EQ(op_status().state, 0);
}

static void release_errors(void)
{
    protect();

    CHECK_EQ(op_release(OUT | UNPAUSE, 0), -EINVAL);
    CHECK_EQ(op_release(UNPAUSE, 0), -EINVAL);
    CHECK_EQ(op_release(OUT, 0), -EINVAL);

    emul_send(5);
    CHECK_EQ(op_release(OUT | UNPAUSE, 0), -EINVAL); /* not frozen */
    harvest();
    CHECK_EQ(op_release(0, 1), -EINVAL);
    CHECK_EQ(op_release(4, 1), -EINVAL);
    CHECK_EQ(op_release(OUT | UNPAUSE | 4, 1), -EINVAL);
    CHECK_EQ(op_release(OUT, 1), -EINVAL);

    CHECK_EQ(op_release(OUT | UNPAUSE, 0), -EILSEQ);
    CHECK_EQ(op_release(OUT | UNPAUSE, 2), -EILSEQ);
    CHECK_EQ(op_release(UNPAUSE, 2), -EILSEQ);
    CHECK_EQ(guest.evtchn[5].sent, 0);
    CHECK_EQ(guest.pause_count, 1);

    CHECK_EQ(op_sync(HARVEST, NULL, NULL), -EBUSY);
    CHECK_EQ(op_sync(2, NULL, NULL), -EINVAL);

    CHECK_EQ(op_release(UNPAUSE, 1), 0);
    CHECK_EQ(op_release(UNPAUSE, 1), -EINVAL);
    CHECK_EQ(op_release(OUT | UNPAUSE, 1), -EINVAL);
    CHECK_EQ(op_release(OUT, 0), -EILSEQ);
    CHECK_EQ(guest.evtchn[5].sent, 0);
    CHECK_EQ(op_release(OUT, 1), 0);
    CHECK_EQ(op_release(OUT, 1), -EINVAL);
    CHECK_EQ(guest.evtchn[5].sent, 1);
}

static void parking(void)
{
    protect();

    emul_raise(7);
    CHECK_EQ(guest.evtchn[7].raised, 1);

    CHECK_EQ(op_sync(0, NULL, NULL), 0);
    emul_raise(7);
    emul_raise(7);
    emul_raise(8);
    emul_raise(9);
    evtchn_close(&guest, 9);
    CHECK_EQ(guest.evtchn[7].raised, 1);
    CHECK_EQ(guest.evtchn[8].raised, 0);

    harvest();
    emul_raise(10);
    CHECK_EQ(op_release(UNPAUSE, 1), 0);
    CHECK_EQ(guest.evtchn[7].raised, 2);
    CHECK_EQ(guest.evtchn[8].raised, 1);
    CHECK_EQ(guest.evtchn[9].raised, 0);
    CHECK_EQ(guest.evtchn[10].raised, 1);

    /* Input is not held while the epoch is uncommitted. */
    emul_raise(7);
    CHECK_EQ(guest.evtchn[7].raised, 3);
    CHECK_EQ(op_release(OUT, 1), 0);
    CHECK_EQ(guest.evtchn[7].raised, 3);
}

static void frozen_meanwhile(void)
{
    guest.kemari->frozen = true;
}

static void thawed_meanwhile(void)
{
    guest.kemari->frozen = false;
}

static void released_meanwhile(void)
{
    /* The sender has it for reading, and so has the release. */
    guest.evtchn[7].lock.held = false;
    CHECK_EQ(op_release(OUT | UNPAUSE, 0), 0);
    guest.evtchn[7].lock.held = true;
}

static void raise_with(evtchn_port_t port, unsigned int barrier,
                       void (*hook)(void))
{
    emul_mb_hook = hook;
    emul_mb_count = barrier;
    emul_raise(port);
    CHECK_EQ(emul_mb_count, 0);
    CHECK_EQ(guest.kemari->delivering.counter, 0);
}

static void thaw_and_freeze(void)
{
    thawed_meanwhile();
    /* The sender takes its bit back, counts itself, and then looks. */
    emul_mb_hook = frozen_meanwhile;
    emul_mb_count = 1;
}

/* Another CPU freezes or releases while one sends: arrives once, and not yet. */
static void parking_races(void)
{
    struct kemari *k;

    protect();
    k = guest.kemari;

    /* Counted, but frozen before it looked again. */
    raise_with(7, 1, frozen_meanwhile);
    CHECK_EQ(guest.evtchn[7].raised, 0);
    CHECK(test_bit(7, k->parked));
    thawed_meanwhile();
    clear_bit(7, k->parked);

    /* Parked, and found by the release. */
    CHECK_EQ(op_sync(0, NULL, NULL), 0);
    raise_with(7, 1, released_meanwhile);
    CHECK_EQ(guest.evtchn[7].raised, 1);
    CHECK(!test_bit(7, k->parked));

    /* Parked where the release had looked already. */
    CHECK_EQ(op_sync(0, NULL, NULL), 0);
    raise_with(8, 1, thawed_meanwhile);
    CHECK_EQ(guest.evtchn[8].raised, 1);
    CHECK(!test_bit(8, k->parked));
    frozen_meanwhile();

    /* The same, and frozen again before it could be delivered. */
    raise_with(9, 1, thaw_and_freeze);
    CHECK_EQ(guest.evtchn[9].raised, 0);
    CHECK(test_bit(9, k->parked));
    CHECK_EQ(op_release(OUT | UNPAUSE, 0), 0);
    CHECK_EQ(guest.evtchn[9].raised, 1);
    CHECK_EQ(guest.pause_count, 0);
}

/* INIT/SIPI under way: the caller is to release and to try again. */
static void starting_vcpu(void)
{
    protect();
    emul_send(5);

    stub_starting_vcpu = true;
    CHECK_EQ(op_sync(HARVEST, NULL, NULL), -EAGAIN);
    stub_starting_vcpu = false;
    CHECK_EQ(op_status().state & XEN_KEMARI_HARVESTED, 0);
    CHECK_EQ(guest.evtchn[5].sent, 0);

    emul_raise(7);
    if ( op_status().state & XEN_KEMARI_FROZEN )
        CHECK_EQ(op_release(OUT | UNPAUSE, 0), 0);
    CHECK_EQ(guest.pause_count, 0);
    CHECK_EQ(guest.evtchn[7].raised, 1);

    CHECK_EQ(harvest(), 1);
    CHECK_EQ(op_release(OUT | UNPAUSE, 1), 0);
    CHECK_EQ(guest.evtchn[5].sent, 1);
    CHECK_EQ(guest.pause_count, 0);
}

/* A guest that starts vCPUs all the time fills its list no further. */
static void starting_vcpu_at_mark(void)
{
    struct xen_kemari_shared *s;

    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 8, 2), 0);
    s = guest.kemari->shared;
    emul_write(1);
    emul_write(2);
    CHECK_EQ(guest.pause_count, 1);

    stub_starting_vcpu = true;
    CHECK_EQ(op_sync(HARVEST, NULL, NULL), -EAGAIN);
    stub_starting_vcpu = false;
    CHECK_EQ(guest.pause_count, 1);
    CHECK_EQ(guest.notified, 2);
    CHECK_EQ(s->trigger_reason, XEN_KEMARI_TRIGGER_MARK);
    CHECK_EQ(op_status().state, XEN_KEMARI_TRIGGERED);

    CHECK_EQ(op_release(OUT | UNPAUSE, harvest()), 0);
    CHECK_EQ(guest.pause_count, 0);
}

static void deliver(void)
{
    struct xen_domctl_kemari_op o = {
        .op = XEN_KEMARI_OP_deliver, .u.tap.port = 5,
    };

    protect();
    CHECK_EQ(kemari_domctl(&guest, &o), 0);
    CHECK_EQ(guest.evtchn[5].sent, 1);
    CHECK_EQ(guest.pause_count, 0);
    o.u.tap.port = EMUL_PORTS;
    CHECK_EQ(kemari_domctl(&guest, &o), -EINVAL);
}

/* From every state, disable gives back a domain that runs, with its output. */
static void disable(void)
{
    unsigned int state;

    for ( state = 0; state < 5; state++ )
    {
        unsigned int sent = guest.evtchn[5].sent;
        unsigned int raised = guest.evtchn[7].raised;

        protect();
        if ( state > 0 )
            emul_send(5);
        if ( state > 1 )
            CHECK_EQ(op_sync(0, NULL, NULL), 0);
        if ( state > 1 )
            emul_raise(7);
        if ( state > 2 )
            harvest();
        if ( state > 3 )
        {
            CHECK_EQ(op_release(UNPAUSE, 1), 0);
            emul_send(6);
        }

        CHECK_EQ(op(XEN_KEMARI_OP_disable, 0), 0);
        CHECK_EQ(guest.pause_count, 0);
        CHECK_EQ(guest.evtchn[5].sent, sent + (state > 0));
        CHECK_EQ(guest.evtchn[7].raised, raised + (state > 1));
        CHECK_EQ(guest.evtchn[6].sent, state > 3);
        CHECK(!guest.log_dirty);
        CHECK_EQ(emul_pages, 0);
        CHECK_EQ(op_status().role, XEN_KEMARI_ROLE_NONE);
        CHECK_EQ(op_status().state, 0);

        emul_send(5);
        CHECK_EQ(guest.evtchn[5].sent, sent + (state > 0) + 1);
        emul_raise(7);
        CHECK_EQ(guest.evtchn[7].raised, raised + (state > 1) + 1);
    }
}

/* The domain is destroyed: emul_destroy() looks for what is left. */
static void destroy_frozen(void)
{
    protect();
    emul_send(5);
    harvest();
}

static void destroy_uncommitted(void)
{
    protect();
    emul_send(5);
    CHECK_EQ(op_release(UNPAUSE, harvest()), 0);
}

/*
 * Whatever the guest and the toolstack do: an event leaves after the commit of
 * the epoch in which it was sent, and not before; the guest stands still when
 * it should.
 */
static void model(void)
{
    enum { ARMED, FROZEN, HARVESTED, UNCOMMITTED } state = ARMED;
    bool open[17] = {}, closed[17] = {}, triggered = false;
    unsigned int i, step, sent[17] = {};
    uint64_t epoch = 0, seed = 2008;

    protect();

    for ( step = 0; step < 200000; step++ )
    {
        unsigned int port = 1 + rnd(&seed) % 16;
        bool any = false;

        switch ( rnd(&seed) % 8 )
        {
        case 0 ... 2:
            /* Only a guest that runs sends. */
            if ( triggered )
                break;
            emul_send(port);
            open[port] = true;
            triggered = state == ARMED;
            break;

        case 3:
            CHECK_EQ(op_sync(0, NULL, NULL), state < HARVESTED ? 0 : -EBUSY);
            if ( state < HARVESTED )
            {
                state = FROZEN;
                triggered = true;
                for ( i = 0; i < 17; i++ )
                {
                    closed[i] |= open[i];
                    open[i] = false;
                }
            }
            break;

        case 4:
            CHECK_EQ(op_sync(HARVEST, NULL, NULL),
                     state < HARVESTED ? 0 : -EBUSY);
            if ( state < HARVESTED )
            {
                state = HARVESTED;
                triggered = true;
                epoch++;
                for ( i = 0; i < 17; i++ )
                {
                    closed[i] |= open[i];
                    open[i] = false;
                }
            }
            break;

        case 5:
            CHECK_EQ(op_release(OUT | UNPAUSE, epoch),
                     state == FROZEN || state == HARVESTED ? 0 : -EINVAL);
            if ( state != FROZEN && state != HARVESTED )
                break;
            state = ARMED;
            triggered = false;
            for ( i = 0; i < 17; i++ )
            {
                sent[i] += closed[i];
                closed[i] = false;
            }
            break;

        case 6:
            CHECK_EQ(op_release(UNPAUSE, epoch),
                     state == HARVESTED ? 0 : -EINVAL);
            if ( state != HARVESTED )
                break;
            state = UNCOMMITTED;
            triggered = false;
            break;

        case 7:
            CHECK_EQ(op_release(OUT, epoch),
                     state == UNCOMMITTED ? 0 : -EINVAL);
            if ( state != UNCOMMITTED )
                break;
            state = ARMED;
            for ( i = 0; i < 17; i++ )
            {
                sent[i] += closed[i];
                closed[i] = false;
                any |= open[i];
            }
            triggered = any;
            break;
        }

        CHECK_EQ(guest.pause_count, triggered);
        for ( i = 1; i < 17; i++ )
            CHECK_EQ(guest.evtchn[i].sent, sent[i]);
    }
}

int main(void)
{
    RUN(hold_and_trigger);
    RUN(trigger_once);
    RUN(pass);
    RUN(tap_errors);
    RUN(close_forgets);
    RUN(release_order);
    RUN(freeze_only);
    RUN(uncommitted);
    RUN(release_errors);
    RUN(parking);
    RUN(parking_races);
    RUN(starting_vcpu);
    RUN(starting_vcpu_at_mark);
    RUN(deliver);
    RUN(disable);
    RUN(destroy_frozen);
    RUN(destroy_uncommitted);
    RUN(model);

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
