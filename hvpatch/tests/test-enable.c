/* SPDX-License-Identifier: GPL-2.0-only */
/* Enable, its errors, the shared buffer, and the life of a secondary. */
#include "emul.h"
#include "test.h"

static void clean(void)
{
    CHECK_EQ(guest.pause_count, guest.controller_pause_count);
    CHECK_EQ(emul_pages, 0);
    CHECK(!guest.log_dirty);
    CHECK_EQ(op_status().role, XEN_KEMARI_ROLE_NONE);
    CHECK_EQ(op_status().state, 0);
    CHECK_EQ(op_status().port, 0);
    CHECK_EQ(guest.evtchn[guest.max_evtchn_port].state, ECS_FREE);
}

static void enable_errors(void)
{
    struct xen_domctl_kemari_op o = {
        .op = XEN_KEMARI_OP_enable,
        .u.enable = {
            .version = XEN_KEMARI_VERSION + 1,
            .role = XEN_KEMARI_ROLE_PRIMARY, .dirty_max = 8, .dirty_mark = 8,
        },
    };

    CHECK_EQ(kemari_domctl(&guest, &o), -EACCES);
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_NONE, 8, 8), -EINVAL);
    CHECK_EQ(op_enable(3, 8, 8), -EINVAL);
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 0, 0), -EINVAL);
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 8, 0), -EINVAL);
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 8, 9), -EINVAL);
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, ~0U, 9), -EINVAL);
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_SECONDARY, 0, 0), -EINVAL);
    clean();

    stub_check = -EOPNOTSUPP;
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 8, 8), -EOPNOTSUPP);
    stub_check = 0;

    guest.max_evtchn_port = XEN_KEMARI_MAX_PORTS;
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 8, 8), -E2BIG);
    guest.max_evtchn_port = EMUL_PORTS - 1;
    clean();

    guest.max_vcpus = 0;
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 8, 8), -EINVAL);
    guest.max_vcpus = 2;
    clean();

    emul_no_log_dirty = true;
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 8, 8), -ENOMEM);
    emul_no_log_dirty = false;
    clean();

    /* Live migration is on its way. */
    guest.log_dirty = true;
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 8, 8), -EBUSY);
    CHECK(guest.log_dirty);
    guest.log_dirty = false;
    clean();

    guest.evtchn[guest.max_evtchn_port].state = ECS_INTERDOMAIN;
    CHECK(op_enable(XEN_KEMARI_ROLE_PRIMARY, 8, 8) < 0);
    guest.evtchn[guest.max_evtchn_port].state = ECS_FREE;
    clean();

    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 8, 8), 0);
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 8, 8), -EBUSY);
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_SECONDARY, 0, 0), -EBUSY);
}

/* XEN_DOMCTL_SHADOW_OP_OFF was preempted: it is freeing the bitmap. */
static void log_dirty_being_freed(void)
{
    guest.arch.paging.preempt.dom = &dom0;
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 8, 8), -EBUSY);
    clean();
    guest.arch.paging.preempt.dom = NULL;
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 8, 8), 0);
}

static void no_memory(void)
{
    int n, rc;

    for ( n = 1; n < 100; n++ )
    {
        emul_fail_alloc = n;
        rc = op_enable(XEN_KEMARI_ROLE_PRIMARY, 1024, 1000);
        emul_fail_alloc = -1;
        if ( !rc )
            break;
        CHECK(rc == -ENOMEM || rc == -ENOSPC);
        clean();
    }
    CHECK(n > 5 && n < 100);
}

static void op_errors(void)
{
    unsigned int i;

    CHECK_EQ(op_status().version, XEN_KEMARI_VERSION);
    for ( i = XEN_KEMARI_OP_disable; i <= XEN_KEMARI_OP_warm; i++ )
        if ( i != XEN_KEMARI_OP_status )
            CHECK_EQ(op(i, 0), -ENODEV);

    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 8, 8), 0);
    CHECK(op(XEN_KEMARI_OP_warm + 1, 0) < 0);
    CHECK(op(~0U, 0) < 0);
    CHECK_EQ(op(XEN_KEMARI_OP_disable, 1), -EINVAL);
    CHECK_EQ(op(XEN_KEMARI_OP_set_state, 0), -EINVAL);
    CHECK_EQ(op(XEN_KEMARI_OP_resume, 0), -EINVAL);

    /* Another toolstack is in the middle of one. */
    guest.kemari->busy = true;
    CHECK_EQ(op(XEN_KEMARI_OP_disable, 0), -ERESTART);
    CHECK_EQ(kemari_teardown(&guest), -ERESTART);
    CHECK(!kemari_enter(&guest));
    guest.kemari->busy = false;

    /* Somebody else is saving the HVM context. */
    CHECK(kemari_enter(&dom0));
    kemari_leave(&dom0);
    CHECK(kemari_enter(&guest));
    CHECK_EQ(op(XEN_KEMARI_OP_sync, 0), -ERESTART);
    CHECK_EQ(kemari_teardown(&guest), -ERESTART);
    kemari_leave(&guest);

    current = guest.vcpu[0];
    CHECK_EQ(op(XEN_KEMARI_OP_disable, 0), -EINVAL);
    current = dom0.vcpu[0];

    guest.is_dying = true;
    CHECK_EQ(op(XEN_KEMARI_OP_disable, 0), -EINVAL);
    guest.is_dying = false;

    CHECK_EQ(op(XEN_KEMARI_OP_disable, 0), 0);
    CHECK_EQ(op(XEN_KEMARI_OP_disable, 0), -ENODEV);
    clean();
}

/* A daemon that was restarted finds all that enable had returned. */
static void status(void)
{
    struct xen_domctl_kemari_op o = {
        .op = XEN_KEMARI_OP_enable,
        .u.enable = {
            .version = XEN_KEMARI_VERSION, .role = XEN_KEMARI_ROLE_PRIMARY,
            .dirty_max = 1000, .dirty_mark = 900,
        },
    };
    struct xen_kemari_status s;

    CHECK_EQ(kemari_domctl(&guest, &o), 0);
    s = op_status();
    CHECK(!memcmp(&s, &o.u.status, sizeof(s)));
    CHECK_EQ(s.version, XEN_KEMARI_VERSION);
    CHECK_EQ(s.role, XEN_KEMARI_ROLE_PRIMARY);
    CHECK_EQ(s.dirty_max, 1000);
    CHECK_EQ(s.dirty_mark, 900);
    CHECK_EQ(s.pad, 0);
    /* The guest's own ports have the same numbers on both hosts. */
    CHECK_EQ(s.port, guest.max_evtchn_port);
}

static void buffer(void)
{
    const struct xen_kemari_shared *sh;
    struct { uint32_t off; uint64_t len; } area[4];
    xen_pfn_t mfn[64];
    unsigned int i, nr;

    CHECK_EQ(kemari_resource_max_frames(&guest, 0), 0);
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 1000, 900), 0);

    sh = guest.kemari->shared;
    nr = op_status().nr_frames;
    CHECK_EQ(sh->magic, XEN_KEMARI_MAGIC);
    CHECK_EQ(sh->version, XEN_KEMARI_VERSION);
    CHECK_EQ(sh->nr_frames, nr);
    CHECK_EQ(kemari_resource_max_frames(&guest, 0), nr);
    CHECK_EQ(kemari_resource_max_frames(&guest, 1), 0);

    /* Page aligned, inside, and apart from each other and the header. */
    area[0].off = sh->dirty_off[0];
    area[1].off = sh->dirty_off[1];
    area[0].len = area[1].len = sh->dirty_max * 8UL;
    area[2].off = sh->always_off;
    area[2].len = sh->always_max * 8UL;
    area[3].off = sh->state_off;
    area[3].len = sh->state_max;
    for ( i = 0; i < 4; i++ )
    {
        uint64_t end = area[i].off + area[i].len;

        CHECK(!(area[i].off % PAGE_SIZE));
        CHECK(area[i].off >= PAGE_SIZE && area[i].len);
        CHECK(end <= (i < 3 ? area[i + 1].off : nr * PAGE_SIZE));
    }

    CHECK(nr <= ARRAY_SIZE(mfn));
    CHECK_EQ(kemari_acquire_resource(&guest, 0, nr, mfn), nr);
    CHECK_EQ(kemari_acquire_resource(&guest, nr - 1, 1, mfn), 1);
    CHECK(kemari_acquire_resource(&guest, nr, 1, mfn) < 0);
    CHECK(kemari_acquire_resource(&guest, 1, nr, mfn) < 0);
    /* The caller excludes sums that overflow. */
    CHECK(kemari_acquire_resource(&guest, ~0U - 1, 1, mfn) < 0);
    CHECK(kemari_acquire_resource(&guest, 0, ~0U, mfn) < 0);

    /* Areas are really as large as they are said to be. */
    CHECK_EQ(op_sync(HARVEST, NULL, NULL), 0);
    CHECK_EQ(sh->sync.always_nr, sh->always_max);
    CHECK_EQ(sh->sync.state_len, 64);
    CHECK_EQ(((uint64_t *)((void *)sh + sh->always_off))[sh->always_max - 1],
             sh->always_max - 1);
}

/* An epoch of which *stub makes that its state cannot be had. */
static void lost_by(int *stub, int error)
{
    struct xen_kemari_sync s;
    int rc, good = *stub;

    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 8, 8), 0);
    *stub = error;
    rc = op_sync(HARVEST, &s, NULL);
    *stub = good;
    CHECK_EQ(rc, 0);
    CHECK_EQ(s.flags, XEN_KEMARI_LOST);
    CHECK_EQ(s.state_len, 0);
}

/* State that could not be read must not pass for an empty one. */
static void save_fails(void)
{
    struct xen_kemari_sync s;

    lost_by(&stub_save, -ENOSPC);

    /* Its list was never sent: no later epoch is whole either. */
    CHECK_EQ(op_release(OUT | UNPAUSE, 1), 0);
    CHECK_EQ(op_sync(HARVEST, &s, NULL), 0);
    CHECK_EQ(s.flags, XEN_KEMARI_LOST);
}

/* A guest that becomes what enable would have refused is not copied on. */
static void refused_later(void)
{
    lost_by(&stub_check, -EOPNOTSUPP);
}

/* What one toolstack let pass, the next one may want to hold. */
static void taps_are_forgotten(void)
{
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 8, 8), 0);
    CHECK_EQ(op_tap(5, XEN_KEMARI_TAP_PASS), 0);
    CHECK_EQ(op(XEN_KEMARI_OP_disable, 0), 0);
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 8, 8), 0);
    emul_send(5);
    CHECK_EQ(guest.evtchn[5].sent, 0);
}

static int set_state(const void *buf, unsigned int size)
{
    struct xen_domctl_kemari_op o = {
        .op = XEN_KEMARI_OP_set_state,
        .u.state = { .buffer.p = buf, .size = size },
    };

    return kemari_domctl(&guest, &o);
}

static void secondary(void)
{
    uint8_t buf[64] = {};

    guest.pause_count = guest.controller_pause_count = 1;
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_SECONDARY, 8, 8), -EINVAL);
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_SECONDARY, 0, 0), 0);
    CHECK_EQ(guest.pause_count, 2);
    CHECK(!guest.log_dirty);
    CHECK_EQ(op_status().port, 0);
    CHECK_EQ(op_status().state, XEN_KEMARI_FROZEN);

    CHECK_EQ(op_sync(HARVEST, NULL, NULL), -EINVAL);
    CHECK_EQ(op_release(OUT | UNPAUSE, 0), -EINVAL);
    CHECK_EQ(op_tap(5, XEN_KEMARI_TAP_PASS), -EINVAL);
    CHECK_EQ(op(XEN_KEMARI_OP_resume, 0), -EINVAL);

    CHECK_EQ(set_state(buf, 0), -EINVAL);
    CHECK_EQ(set_state(buf, XEN_KEMARI_STATE_MAX + 1), -EINVAL);
    CHECK_EQ(set_state(NULL, sizeof(buf)), -EFAULT);

    emul_raise(7);
    CHECK_EQ(guest.evtchn[7].raised, 0);

    CHECK_EQ(set_state(buf, sizeof(buf)), 0);
    CHECK(op_status().state & XEN_KEMARI_STATE_SET);
    CHECK_EQ(set_state(buf, sizeof(buf)), -EBUSY);

    guest.evtchn[20].state = ECS_VIRQ;
    guest.evtchn[20].u.virq = VIRQ_TIMER;
    guest.evtchn[21].state = ECS_VIRQ;
    guest.evtchn[21].u.virq = VIRQ_TIMER + 1;
    guest.evtchn[22].state = ECS_IPI;

    CHECK_EQ(op(XEN_KEMARI_OP_resume, 0), 0);
    CHECK_EQ(guest.pause_count, 1);
    CHECK_EQ(guest.evtchn[7].raised, 1);
    CHECK_EQ(guest.evtchn[16].raised, 1);
    CHECK_EQ(guest.evtchn[20].raised, 1);
    CHECK_EQ(guest.evtchn[21].raised, 0);
    CHECK_EQ(guest.evtchn[22].raised, 0);
    CHECK_EQ(guest.evtchn[40].raised, 0);
    CHECK_EQ(op(XEN_KEMARI_OP_resume, 0), -ENODEV);

    /* An ordinary domain again, which can be protected. */
    emul_send(5);
    CHECK_EQ(guest.evtchn[5].sent, 1);
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, 8, 8), 0);
    CHECK_EQ(op_sync(HARVEST, NULL, NULL), 0);
}

/* A domain for which set_state has failed can only be destroyed. */
static void failed_state(void)
{
    uint8_t buf[64] = {};

    guest.pause_count = guest.controller_pause_count = 1;
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_SECONDARY, 0, 0), 0);
    stub_restore = -EXDEV;
    CHECK_EQ(set_state(buf, sizeof(buf)), -EXDEV);
    stub_restore = 0;
    CHECK_EQ(set_state(buf, sizeof(buf)), -EBUSY);
    CHECK_EQ(op(XEN_KEMARI_OP_resume, 0), -EINVAL);
    CHECK_EQ(op(XEN_KEMARI_OP_disable, 0), -EBUSY);
    CHECK_EQ(guest.pause_count, 2);
}

static void secondary_given_up(void)
{
    guest.pause_count = guest.controller_pause_count = 1;
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_SECONDARY, 0, 0), 0);
    emul_raise(7);
    CHECK_EQ(op(XEN_KEMARI_OP_disable, 0), 0);
    CHECK_EQ(guest.evtchn[7].raised, 1);
    clean();
}

int main(void)
{
    RUN(enable_errors);
    RUN(log_dirty_being_freed);
    RUN(no_memory);
    RUN(op_errors);
    RUN(status);
    RUN(buffer);
    RUN(save_fails);
    RUN(refused_later);
    RUN(taps_are_forgotten);
    RUN(secondary);
    RUN(failed_state);
    RUN(secondary_given_up);

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
