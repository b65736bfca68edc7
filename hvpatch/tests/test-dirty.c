/* SPDX-License-Identifier: GPL-2.0-only */
/* The list of dirtied pages. */
#include "emul.h"
#include "test.h"

#define MAX  512
#define MARK 100

static struct xen_kemari_shared *protect(unsigned int max, unsigned int mark)
{
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_PRIMARY, max, mark), 0);
    return guest.kemari->shared;
}

/* As the toolstack sees it. */
static const uint64_t *list(const struct xen_kemari_sync *s)
{
    const struct xen_kemari_shared *shared = guest.kemari->shared;

    CHECK(s->dirty_half < 2);
    CHECK(s->dirty_nr <= shared->dirty_max);
    return (const void *)shared + shared->dirty_off[s->dirty_half];
}

static bool listed(const struct xen_kemari_sync *s, uint64_t entry)
{
    unsigned int i;

    for ( i = 0; i < s->dirty_nr; i++ )
        if ( list(s)[i] == entry )
            return true;

    return false;
}

static struct xen_kemari_sync close_epoch(void)
{
    struct xen_kemari_sync s;

    CHECK_EQ(op_sync(HARVEST, &s, NULL), 0);
    CHECK(!memcmp(&s, &guest.kemari->shared->sync, sizeof(s)));
    return s;
}

static void run(uint64_t epoch)
{
    CHECK_EQ(op_release(OUT | UNPAUSE, epoch), 0);
}

static void append_and_rearm(void)
{
    struct xen_kemari_sync s;

    protect(MAX, MARK);
    CHECK(guest.log_dirty);

    emul_write(10);
    emul_write(20);
    emul_write(10);
    s = close_epoch();
    CHECK_EQ(s.epoch, 1);
    CHECK_EQ(s.flags, 0);
    CHECK_EQ(s.dirty_half, 0);
    CHECK_EQ(s.dirty_nr, 2);
    CHECK_EQ(list(&s)[0], 10);
    CHECK_EQ(list(&s)[1], 20);
    CHECK(!guest.writable[10] && !guest.writable[20]);
    CHECK(!guest.dirty[10] && !guest.dirty[20]);
    CHECK_EQ(guest.flushed, guest.max_vcpus);
    CHECK_EQ(guest.pause_count, 1);
    run(1);

    /* The halves take turns, and a page is listed anew. */
    emul_write(20);
    emul_write(30);
    s = close_epoch();
    CHECK_EQ(s.dirty_half, 1);
    CHECK_EQ(s.dirty_nr, 2);
    CHECK_EQ(list(&s)[0], 20);
    CHECK_EQ(list(&s)[1], 30);
    run(2);

    s = close_epoch();
    CHECK_EQ(s.dirty_half, 0);
    CHECK_EQ(s.dirty_nr, 0);
    run(3);
}

/* Only what is on the list is write protected again. */
static void selective(void)
{
    protect(MAX, MARK);
    guest.writable[77] = true;
    emul_write(78);
    close_epoch();
    CHECK(guest.writable[77]);
    CHECK(!guest.writable[78]);
}

static void trigger_at_mark(void)
{
    struct xen_kemari_shared *shared = protect(8, 3);
    struct xen_kemari_sync s;

    emul_write(1);
    emul_write(2);
    CHECK_EQ(guest.pause_count, 0);
    emul_write(3);
    CHECK_EQ(guest.pause_count, 1);
    CHECK_EQ(guest.notified, 1);
    CHECK_EQ(shared->trigger_reason, XEN_KEMARI_TRIGGER_MARK);

    /* What other vCPUs add before they stop has a place, up to the end. */
    emul_write(4);
    emul_write(5);
    emul_write(6);
    emul_write(7);
    emul_write(8);
    CHECK_EQ(guest.pause_count, 1);
    CHECK_EQ(guest.notified, 1);
    s = close_epoch();
    CHECK_EQ(s.flags, 0);
    CHECK_EQ(s.dirty_nr, 8);
    run(1);
    CHECK_EQ(guest.pause_count, 0);
}

static void overflow(void)
{
    struct xen_kemari_sync s;
    uint64_t *other;
    unsigned int i;

    /* A whole page each: an overrun would be into the other half. */
    protect(512, 512);
    other = guest.kemari->dirty[1];
    other[0] = 0x5a5a;

    for ( i = 0; i < 600; i++ )
        emul_write(i);
    CHECK_EQ(other[0], 0x5a5a);
    CHECK_EQ(guest.pause_count, 1);

    s = close_epoch();
    CHECK_EQ(s.dirty_nr, 512);
    CHECK_EQ(s.flags, XEN_KEMARI_LOST);
    run(1);
}

/* What is lost stays lost: the domain stops until it is protected anew. */
static void lost_until_disabled(void)
{
    struct xen_kemari_sync s;

    protect(MAX, MARK);
    paging_lock(&guest);
    kemari_dirty_lost(&guest);
    paging_unlock(&guest);
    CHECK_EQ(guest.pause_count, 1);
    CHECK_EQ(guest.notified, 1);

    s = close_epoch();
    CHECK_EQ(s.flags, XEN_KEMARI_LOST);
    run(1);
    CHECK_EQ(guest.pause_count, 1);
    CHECK_EQ(guest.notified, 2);

    s = close_epoch();
    CHECK_EQ(s.flags, XEN_KEMARI_LOST);

    CHECK_EQ(op(XEN_KEMARI_OP_disable, 0), 0);
    CHECK_EQ(guest.pause_count, 0);

    protect(MAX, MARK);
    emul_write(3);
    s = close_epoch();
    CHECK_EQ(s.flags, 0);
    CHECK_EQ(s.dirty_nr, 1);
    run(1);
    CHECK_EQ(guest.pause_count, 0);
}

/* A page that could not be write protected again would be written unseen. */
static void not_rearmed(void)
{
    struct xen_kemari_sync s;

    protect(MAX, MARK);
    emul_write(6);
    emul_stuck_gfn = 6;
    s = close_epoch();
    emul_stuck_gfn = ~0UL;
    CHECK(listed(&s, 6));
    run(1);
    CHECK_EQ(guest.pause_count, 1);
    s = close_epoch();
    CHECK_EQ(s.flags, XEN_KEMARI_LOST);
}

static void p2m_changed(void)
{
    struct xen_kemari_sync s;

    protect(MAX, MARK);
    kemari_p2m_changed(&guest, _gfn(40), 2);
    /* Beyond what is mapped now: the entry has been removed. */
    kemari_p2m_changed(&guest, _gfn(EMUL_GFNS + 5), 0);
    emul_write(40);
    s = close_epoch();
    CHECK_EQ(s.dirty_nr, 6);
    CHECK(listed(&s, 40 | XEN_KEMARI_DIRTY_P2M));
    CHECK(listed(&s, 41 | XEN_KEMARI_DIRTY_P2M));
    CHECK(listed(&s, 42 | XEN_KEMARI_DIRTY_P2M));
    CHECK(listed(&s, 43 | XEN_KEMARI_DIRTY_P2M));
    CHECK(listed(&s, (EMUL_GFNS + 5) | XEN_KEMARI_DIRTY_P2M));
    CHECK(listed(&s, 40));
    CHECK(!guest.writable[40]);
    run(1);

    /* More at once than the list can hold. */
    kemari_p2m_changed(&guest, _gfn(0), 11);
    s = close_epoch();
    CHECK_EQ(s.flags, XEN_KEMARI_LOST);
}

/* Writes that come while the guest is frozen belong to the next epoch. */
static unsigned int foreign_gfn;
static void foreign_write(struct domain *d)
{
    emul_write(foreign_gfn);
}

static void frozen_writes(void)
{
    struct xen_kemari_sync s;
    unsigned int i;

    protect(MAX, MARK);

    /* What the hardware had cached is part of the epoch that is closed. */
    foreign_gfn = 50;
    emul_flush_hook = foreign_write;
    s = close_epoch();
    emul_flush_hook = NULL;
    CHECK(listed(&s, 50));

    for ( i = 100; i < 100 + MARK; i++ )
        emul_write(i);
    CHECK_EQ(guest.pause_count, 1);
    run(1);
    /* The list is full already: no running without a new epoch. */
    CHECK_EQ(guest.pause_count, 1);
    CHECK_EQ(guest.kemari->shared->trigger_reason, XEN_KEMARI_TRIGGER_MARK);

    s = close_epoch();
    CHECK_EQ(s.dirty_nr, MARK);
    run(2);
    CHECK_EQ(guest.pause_count, 0);
}

static void preempted(void)
{
    struct xen_domctl_kemari_op o = {
        .op = XEN_KEMARI_OP_sync, .flags = HARVEST,
    };
    struct xen_kemari_sync s;
    unsigned int i;

    protect(2048, 2000);
    for ( i = 0; i < 1500; i++ )
        emul_write(i);

    emul_preempt = 2;
    CHECK_EQ(kemari_domctl(&guest, &o), -ERESTART);
    CHECK_EQ(guest.pause_count, 1);
    CHECK_EQ(op_status().state & XEN_KEMARI_HARVESTED, 0);
    CHECK_EQ(op_release(OUT | UNPAUSE, 0), -EINVAL);

    /* One page is armed again already, the other not yet: both are kept. */
    CHECK(!guest.writable[1]);
    CHECK(guest.writable[1499]);
    emul_write(1);
    foreign_gfn = 1;

    CHECK_EQ(kemari_domctl(&guest, &o), 0);
    s = o.u.sync;
    CHECK_EQ(s.epoch, 1);
    CHECK_EQ(s.dirty_nr, 1500);
    CHECK(listed(&s, 1499));
    for ( i = 0; i < 1500; i++ )
        CHECK(i == 1 || !guest.writable[i]);
    run(1);

    s = close_epoch();
    CHECK_EQ(s.dirty_nr, 1);
    CHECK(listed(&s, 1));
}

/*
 * dom0 can write to the buffer.  Whatever stands there, Xen neither goes out
 * of bounds nor loses a page.
 */
static void hostile_buffer(void)
{
    uint64_t seed = 1;
    unsigned int round, i;

    protect(MAX, MARK);

    for ( round = 1; round <= 200; round++ )
    {
        uint64_t *p = (void *)guest.kemari->shared;
        struct xen_domctl_kemari_op o = {
            .op = XEN_KEMARI_OP_sync, .flags = HARVEST,
        };

        for ( i = 0; i < 20; i++ )
            emul_write(rnd(&seed) % EMUL_GFNS);
        for ( i = 0; i < guest.kemari->nr_frames * PAGE_SIZE / 8; i++ )
            p[i] = rnd(&seed) >> (rnd(&seed) % 64);

        CHECK_EQ(kemari_domctl(&guest, &o), 0);
        CHECK_EQ(o.u.sync.epoch, round);
        CHECK_EQ(o.u.sync.flags, 0);
        CHECK(o.u.sync.dirty_nr <= 20);
        CHECK(o.u.sync.dirty_half < 2);
        run(round);
        CHECK_EQ(guest.pause_count, 0);
    }
}

/* Each page written since its last harvest is on the list, in any order. */
static void model(void)
{
    static bool written[EMUL_GFNS];
    uint64_t seed = 42;
    unsigned int round, i, n;

    protect(MAX, MARK);

    for ( round = 1; round <= 2000; round++ )
    {
        struct xen_kemari_sync s;

        memset(written, 0, sizeof(written));
        n = rnd(&seed) % (MARK + 50);
        for ( i = 0; i < n; i++ )
        {
            unsigned int gfn = rnd(&seed) % 300;

            emul_write(gfn);
            written[gfn] = true;
        }

        s = close_epoch();
        CHECK_EQ(s.epoch, round);
        CHECK_EQ(s.flags, 0);
        for ( i = 0, n = 0; i < EMUL_GFNS; i++ )
            n += written[i];
        CHECK_EQ(s.dirty_nr, n);
        for ( i = 0; i < s.dirty_nr; i++ )
            CHECK(written[list(&s)[i]]);
        run(round);
        CHECK_EQ(guest.pause_count, 0);
    }
}

static int set_gfns(unsigned int op, const uint64_t *gfns, unsigned int nr)
{
    struct xen_domctl_kemari_op o = {
        .op = op, .u.gfns = { .gfns.p = gfns, .nr = nr },
    };

    return kemari_domctl(&guest, &o);
}

static int set_hot(const uint64_t *gfns, unsigned int nr)
{
    return set_gfns(XEN_KEMARI_OP_hot, gfns, nr);
}

static int set_warm(const uint64_t *gfns, unsigned int nr)
{
    return set_gfns(XEN_KEMARI_OP_warm, gfns, nr);
}

static void hot(void)
{
    static const uint64_t both[] = { 10, 20 }, one[] = { 20 };
    struct xen_kemari_sync s;

    protect(MAX, MARK);
    emul_write(10);
    CHECK_EQ(set_hot(both, 2), 0);

    /* From this harvest on not write protected; not listed before. */
    s = close_epoch();
    CHECK_EQ(s.dirty_nr, 1);
    CHECK(guest.writable[10] && guest.dirty[10]);
    run(1);

    /* What has not been written yet is listed, too, and faults once. */
    emul_write(10);
    emul_write(30);
    emul_write(20);
    s = close_epoch();
    CHECK_EQ(s.dirty_nr, 4);
    CHECK_EQ(list(&s)[0], 10);
    CHECK_EQ(list(&s)[1], 20);
    CHECK_EQ(list(&s)[2], 30);
    CHECK_EQ(list(&s)[3], 20);
    CHECK(guest.writable[10] && guest.writable[20] && !guest.writable[30]);
    run(2);

    /* Whether written or not, now without a fault. */
    emul_write(10);
    emul_write(20);
    s = close_epoch();
    CHECK_EQ(s.dirty_nr, 2);
    CHECK(listed(&s, 10) && listed(&s, 20));
    run(3);

    /* What is hot no more is listed once more, and then write protected. */
    CHECK_EQ(set_hot(one, 1), 0);
    emul_write(10);
    s = close_epoch();
    CHECK_EQ(s.dirty_nr, 2);
    CHECK(listed(&s, 10) && listed(&s, 20));
    CHECK(!guest.writable[10] && !guest.dirty[10] && guest.writable[20]);
    run(4);
    s = close_epoch();
    CHECK_EQ(s.dirty_nr, 1);
    CHECK(listed(&s, 20));
    emul_write(10); /* frozen: belongs to the next one */
    CHECK_EQ(set_hot(NULL, 0), 0);
    run(5);
    s = close_epoch();
    CHECK_EQ(s.dirty_nr, 2);
    CHECK(listed(&s, 10) && listed(&s, 20));
    CHECK(!guest.writable[20]);
    run(6);
    s = close_epoch();
    CHECK_EQ(s.dirty_nr, 0);
    run(7);

    /* A protection begins without. */
    CHECK_EQ(set_hot(one, 1), 0);
    CHECK_EQ(op(XEN_KEMARI_OP_disable, 0), 0);
    protect(MAX, MARK);
    emul_write(20);
    close_epoch();
    CHECK(!guest.writable[20]);
    run(1);
    s = close_epoch();
    CHECK_EQ(s.dirty_nr, 0);
}

static void hot_and_mark(void)
{
    static const uint64_t gfns[] = { 1, 2, 3, EMUL_GFNS + 7 };
    struct xen_kemari_sync s;

    protect(8, 4);
    CHECK_EQ(set_hot(gfns, 4), -E2BIG);
    CHECK_EQ(set_hot(gfns + 1, 3), 0);
    close_epoch();
    run(1);
    CHECK_EQ(guest.pause_count, 0);
    emul_write(40);
    CHECK_EQ(guest.pause_count, 1);
    CHECK_EQ(guest.kemari->shared->trigger_reason, XEN_KEMARI_TRIGGER_MARK);
    s = close_epoch();
    CHECK_EQ(s.dirty_nr, 4);
    CHECK_EQ(s.flags, 0);
    CHECK(listed(&s, EMUL_GFNS + 7));
}

static const uint64_t bad[][2] = {
    { 2, 1 }, { 1, 1 }, { 1, XEN_KEMARI_DIRTY_P2M | 2 }, { 1, 1ULL << 52 },
};

static void hot_refused(void)
{
    static const uint64_t good[] = { 5 };
    static uint64_t many[XEN_KEMARI_HOT_MAX + 1];
    struct xen_domctl_kemari_op o = {
        .op = XEN_KEMARI_OP_sync, .flags = HARVEST,
    };
    struct xen_kemari_sync s;
    unsigned int i;

    CHECK_EQ(set_hot(good, 1), -ENODEV);
    protect(2048, 2000);
    CHECK_EQ(set_hot(good, 1), 0);
    for ( i = 0; i < ARRAY_SIZE(many); i++ )
        many[i] = i;
    CHECK_EQ(set_hot(many, ARRAY_SIZE(many)), -E2BIG);
    for ( i = 0; i < ARRAY_SIZE(bad); i++ )
        CHECK_EQ(set_hot(bad[i], 2), -EINVAL);
    CHECK_EQ(set_hot(NULL, 1), -EFAULT);
    emul_fail_alloc = 0;
    CHECK_EQ(set_hot(good, 1), -ENOMEM);
    emul_fail_alloc = -1;

    /* Nothing of that has changed anything. */
    for ( i = 0; i < 1500; i++ )
        emul_write(i);
    emul_preempt = 2;
    CHECK_EQ(kemari_domctl(&guest, &o), -ERESTART);
    /*
     * A page not yet looked at would stay writable without being on the list
     * which is open already.
     */
    CHECK_EQ(set_hot(many, XEN_KEMARI_HOT_MAX), -EBUSY);
    CHECK_EQ(kemari_domctl(&guest, &o), 0);
    for ( i = 0; i < 1500; i++ )
        CHECK(guest.writable[i] == (i == 5));
    run(1);
    s = close_epoch();
    CHECK_EQ(s.dirty_nr, 1);
    CHECK(listed(&s, 5));

    CHECK_EQ(op(XEN_KEMARI_OP_disable, 0), 0);
    guest.controller_pause_count++;
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_SECONDARY, 0, 0), 0);
    CHECK_EQ(set_hot(good, 1), -EINVAL);
    guest.controller_pause_count--;
}

static void warm(void)
{
    /* 16 to 23 are beside each other, and 15 and 24 are of others. */
    static const uint64_t gfns[] = { 15, 16, 18, 20, 23, 24 };
    struct xen_kemari_sync s;

    protect(MAX, MARK);
    CHECK_EQ(set_warm(gfns, ARRAY_SIZE(gfns)), 0);
    s = close_epoch();
    CHECK_EQ(s.dirty_nr, 0);
    run(1);

    /* One that is warm itself, or not. */
    emul_write(16);
    CHECK(guest.writable[18] && guest.writable[20] && guest.writable[23]);
    CHECK(!guest.writable[15] && !guest.writable[17] && !guest.writable[24]);
    emul_write(17);
    s = close_epoch();
    CHECK_EQ(s.dirty_nr, 5);
    CHECK(listed(&s, 16) && listed(&s, 17) && listed(&s, 18) &&
          listed(&s, 20) && listed(&s, 23));
    CHECK(!guest.writable[16] && !guest.writable[20] && !guest.dirty[23]);
    run(2);

    /* One that cannot be made writable is not listed. */
    emul_stuck_gfn = 20;
    emul_write(22);
    CHECK(!guest.writable[20]);
    emul_stuck_gfn = ~0UL;
    s = close_epoch();
    CHECK_EQ(s.flags, 0);
    CHECK_EQ(s.dirty_nr, 4);
    CHECK(listed(&s, 22) && listed(&s, 16) && listed(&s, 18) && listed(&s, 23));
    run(3);

    CHECK_EQ(set_warm(NULL, 0), 0);
    emul_write(22);
    CHECK(!guest.writable[16]);

    /* A protection begins without. */
    CHECK_EQ(set_warm(gfns, ARRAY_SIZE(gfns)), 0);
    CHECK_EQ(op(XEN_KEMARI_OP_disable, 0), 0);
    protect(MAX, MARK);
    emul_write(16);
    CHECK(!guest.writable[18]);
}

/* The pages beside one that is written have a place on the list, too. */
static void warm_and_mark(void)
{
    static const uint64_t gfns[] = { 0, 1, 2, 3, 4, 5, 6, 7 };
    struct xen_kemari_sync s;

    protect(12, 4);
    CHECK_EQ(set_warm(gfns, ARRAY_SIZE(gfns)), 0);
    emul_write(3);
    CHECK_EQ(guest.pause_count, 1);
    CHECK_EQ(guest.notified, 1);
    s = close_epoch();
    CHECK_EQ(s.dirty_nr, 8);
    CHECK_EQ(s.flags, 0);
    run(1);
    CHECK_EQ(guest.pause_count, 0);
}

static void warm_refused(void)
{
    static const uint64_t good[] = { 5, 6, EMUL_GFNS };
    static uint64_t many[XEN_KEMARI_WARM_MAX + 1];
    struct xen_domctl_kemari_op o = {
        .op = XEN_KEMARI_OP_warm, .u.gfns = { .gfns.p = good, .nr = 1, .pad = 1 },
    };
    unsigned int i;

    CHECK_EQ(set_warm(good, 1), -ENODEV);
    protect(MAX, MARK);
    CHECK_EQ(set_warm(good, ARRAY_SIZE(good)), 0);
    for ( i = 0; i < ARRAY_SIZE(many); i++ )
        many[i] = i;
    CHECK_EQ(set_warm(many, ARRAY_SIZE(many)), -E2BIG);
    for ( i = 0; i < ARRAY_SIZE(bad); i++ )
        CHECK_EQ(set_warm(bad[i], 2), -EINVAL);
    CHECK_EQ(set_warm(NULL, 1), -EFAULT);
    CHECK_EQ(kemari_domctl(&guest, &o), -EINVAL);
    emul_fail_alloc = 0;
    CHECK_EQ(set_warm(good, 1), -ENOMEM);
    emul_fail_alloc = -1;

    /* Nothing of that has changed anything.  What is no page is not listed. */
    emul_removed_gfn = 6;
    emul_write(4);
    emul_removed_gfn = ~0UL;
    CHECK(guest.writable[5] && !guest.writable[6]);
    CHECK_EQ(close_epoch().dirty_nr, 2);
    run(1);
    CHECK_EQ(set_warm(many, ARRAY_SIZE(many) - 1), 0);

    CHECK_EQ(op(XEN_KEMARI_OP_disable, 0), 0);
    guest.controller_pause_count++;
    CHECK_EQ(op_enable(XEN_KEMARI_ROLE_SECONDARY, 0, 0), 0);
    CHECK_EQ(set_warm(good, 1), -EINVAL);
    guest.controller_pause_count--;
}

/*
 * Each page that was written is on the list of the epoch in which it was,
 * whatever becomes hot or warm when, and those which are not hot are written with a
 * fault the first time.  At any time, what can be written without a fault is
 * on the open list.
 */
static void named_model_check(void)
{
    const struct kemari *k = guest.kemari;
    unsigned int i, j;

    for ( i = 0; i < EMUL_GFNS; i++ )
    {
        for ( j = 0; j < k->dirty_nr[k->half]; j++ )
            if ( (k->dirty[k->half][j] & XEN_KEMARI_DIRTY_GFN_MASK) == i )
                break;
        CHECK(j < k->dirty_nr[k->half] ||
              (!guest.dirty[i] && !guest.writable[i]));
    }
}

static void named_model(void)
{
    static bool written[EMUL_GFNS];
    uint64_t seed = 43, epoch = 0;
    unsigned int round, i;

    protect(MAX, MARK);
    memset(written, 0, sizeof(written));

    for ( round = 0; round < 20000; round++ )
    {
        struct xen_kemari_sync s;
        uint64_t gfns[40];
        unsigned int nr;

        named_model_check();

        switch ( i = rnd(&seed) % 5 )
        {
        case 0:
        case 1:
            for ( i = rnd(&seed) % 20; i; i-- )
            {
                unsigned int gfn = rnd(&seed) % 60;
                bool fault = !guest.writable[gfn];

                emul_write(gfn);
                written[gfn] = true;
                for ( nr = 0; fault && nr < guest.kemari->warm_nr; nr++ )
                    CHECK(guest.kemari->warm[nr] / 8 != gfn / 8 ||
                          guest.writable[guest.kemari->warm[nr]]);
            }
            continue;

        case 2:
        case 3:
        {
            unsigned int op = i == 2 ? XEN_KEMARI_OP_hot : XEN_KEMARI_OP_warm;

            for ( i = nr = 0; i < 60 && nr < ARRAY_SIZE(gfns); i++ )
                if ( rnd(&seed) % 3 == 0 )
                    gfns[nr++] = i;
            CHECK_EQ(set_gfns(op, gfns, nr), 0);
            continue;
        }
        }

        s = close_epoch();
        CHECK_EQ(s.flags, 0);
        for ( i = 0; i < 60; i++ )
            CHECK(!written[i] || listed(&s, i));
        for ( i = 0; i < s.dirty_nr; i++ )
        {
            bool is_hot = false;

            for ( nr = 0; nr < guest.kemari->hot_nr; nr++ )
                is_hot |= guest.kemari->hot[nr] == list(&s)[i];
            CHECK(is_hot || !guest.writable[list(&s)[i]]);
        }
        memset(written, 0, sizeof(written));
        run(++epoch);
        CHECK_EQ(guest.pause_count, 0);
    }
}

static void not_protected(void)
{
    /* The hooks of a domain that never was, and of one that no longer is. */
    paging_log_dirty_enable(&guest);
    emul_write(1);
    kemari_p2m_changed(&guest, _gfn(1), 0);
    paging_lock(&guest);
    kemari_dirty_lost(&guest);
    paging_unlock(&guest);
    CHECK(!kemari_owns_log_dirty(&guest));
    guest.log_dirty = false;

    protect(MAX, MARK);
    CHECK(kemari_owns_log_dirty(&guest));
    CHECK_EQ(op(XEN_KEMARI_OP_disable, 0), 0);
    CHECK(!kemari_owns_log_dirty(&guest));

    paging_log_dirty_enable(&guest);
    emul_write(1);
    kemari_p2m_changed(&guest, _gfn(1), 0);
    paging_lock(&guest);
    kemari_dirty_lost(&guest);
    paging_unlock(&guest);
    CHECK_EQ(guest.pause_count, 0);
}

int main(void)
{
    RUN(append_and_rearm);
    RUN(selective);
    RUN(trigger_at_mark);
    RUN(overflow);
    RUN(lost_until_disabled);
    RUN(not_rearmed);
    RUN(p2m_changed);
    RUN(frozen_writes);
    RUN(preempted);
    RUN(hostile_buffer);
    RUN(model);
    RUN(hot);
    RUN(hot_and_mark);
    RUN(hot_refused);
    RUN(warm);
    RUN(warm_and_mark);
    RUN(warm_refused);
    RUN(named_model);
    RUN(not_protected);

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
