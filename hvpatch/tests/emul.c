/* SPDX-License-Identifier: GPL-2.0-only */
#include "emul.h"

struct domain guest, dom0;
struct vcpu *current;
s_time_t emul_now;
unsigned int emul_preempt;
void (*emul_mb_hook)(void);
unsigned int emul_mb_count;
unsigned long emul_removed_gfn = ~0UL;
uint64_t emul_tsc_skew;
unsigned long emul_stuck_gfn = ~0UL;
bool emul_no_log_dirty;
int emul_fail_alloc = -1;
unsigned int emul_pages;
void (*emul_flush_hook)(struct domain *d);
unsigned int emul_log[64], emul_log_nr;

static struct page_info pages[8192];

unsigned int find_next_bit(const unsigned long *map, unsigned int size,
                           unsigned int from)
{
    while ( from < size && !test_bit(from, map) )
        from++;

    return from;
}

static bool alloc_fails(void)
{
    return !emul_fail_alloc || (emul_fail_alloc > 0 && !--emul_fail_alloc);
}

void *emul_alloc(size_t size)
{
    return alloc_fails() ? NULL : calloc(1, size);
}

/* With what somebody else has left there. */
void *emul_alloc_dirty(size_t size)
{
    void *p = emul_alloc(size);

    return p ? memset(p, 0x5a, size) : NULL;
}

struct page_info *alloc_domheap_page(struct domain *d, unsigned int flags)
{
    unsigned int i;

    if ( alloc_fails() )
        return NULL;

    for ( i = 0; i < ARRAY_SIZE(pages); i++ )
        if ( !pages[i].refs )
        {
            pages[i].mfn = i;
            pages[i].refs = 1;
            emul_pages++;
            return &pages[i];
        }

    return NULL;
}

struct page_info *mfn_to_page(mfn_t mfn)
{
    assert(mfn_x(mfn) < ARRAY_SIZE(pages));
    return &pages[mfn_x(mfn)];
}

bool get_page_and_type(struct page_info *pg, struct domain *d, int type)
{
    assert(pg->refs == 1);
    pg->refs++;
    return true;
}

static void put(struct page_info *pg)
{
    assert(pg->refs > 0);
    if ( !--pg->refs )
        emul_pages--;
}

void put_page_and_type(struct page_info *pg) { put(pg); }
void put_page_alloc_ref(struct page_info *pg) { put(pg); }

void *vmap(const mfn_t *mfn, unsigned int nr)
{
    void *p;

    if ( alloc_fails() )
        return NULL;

    p = aligned_alloc(PAGE_SIZE, nr * PAGE_SIZE);
    return memset(p, 0, nr * PAGE_SIZE);
}

void domain_pause_nosync(struct domain *d)
{
    d->pause_count++;
}

void domain_pause(struct domain *d)
{
    /* A vCPU that waits for itself to be descheduled. */
    assert(current->domain != d);
    d->pause_count++;
}

void domain_unpause(struct domain *d)
{
    assert(d->pause_count > 0);
    d->pause_count--;
}

static void set_pending(struct vcpu *v, struct evtchn *chn)
{
    chn->raised++;
}

static const struct evtchn_port_ops port_ops = { .set_pending = set_pending };

void evtchn_port_set_pending(struct domain *d, unsigned int vcpu_id,
                             struct evtchn *chn)
{
    assert(chn->lock.held);

    if ( d->kemari )
        kemari_set_pending(d->vcpu[vcpu_id], chn);
    else
        d->evtchn_port_ops->set_pending(d->vcpu[vcpu_id], chn);
}

int evtchn_send(struct domain *d, evtchn_port_t port)
{
    struct evtchn *chn;
    bool held = false;

    if ( !port_is_valid(d, port) )
        return -EINVAL;

    chn = evtchn_from_port(d, port);
    evtchn_read_lock(chn);
    if ( chn->state == ECS_INTERDOMAIN )
    {
        held = kemari_tap(d, chn);
        if ( !held )
        {
            chn->sent++;
            if ( emul_log_nr < ARRAY_SIZE(emul_log) )
                emul_log[emul_log_nr++] = port;
        }
    }
    evtchn_read_unlock(chn);

    if ( held )
        kemari_event_held(d, port);

    return 0;
}

void notify_via_xen_event_channel(struct domain *d, int port)
{
    assert(port > 0 && d->evtchn[port].xen_consumer);
    d->notified++;
}

int alloc_xen_event_channel_at(struct domain *d, evtchn_port_t port,
                               unsigned int vcpu, domid_t remote)
{
    struct evtchn *chn;

    if ( alloc_fails() )
        return -ENOSPC;

    chn = evtchn_from_port(d, port);
    if ( chn->state != ECS_FREE )
        return -EBUSY;

    chn->state = ECS_UNBOUND;
    chn->xen_consumer = 1;

    return port;
}

void evtchn_close(struct domain *d, evtchn_port_t port)
{
    struct evtchn *chn = evtchn_from_port(d, port);

    write_lock(&chn->lock);
    chn->state = ECS_FREE;
    chn->xen_consumer = 0;
    kemari_evtchn_free(d, chn);
    write_unlock(&chn->lock);
}

void free_xen_event_channel(struct domain *d, int port)
{
    assert(d->evtchn[port].xen_consumer);
    evtchn_close(d, port);
}

int paging_log_dirty_enable(struct domain *d)
{
    unsigned int i;

    if ( d->log_dirty )
        return -EINVAL;

    if ( emul_no_log_dirty )
    {
        /* A page was marked while it was being tried. */
        paging_lock(d);
        kemari_dirty_lost(d);
        paging_unlock(d);
        return -ENOMEM;
    }

    d->log_dirty = true;
    for ( i = 0; i < EMUL_GFNS; i++ )
        d->dirty[i] = d->writable[i] = false;

    return 0;
}

int paging_log_dirty_disable(struct domain *d, bool resuming)
{
    assert(d->log_dirty);

    if ( !resuming )
        return -ERESTART;

    d->log_dirty = false;

    return 0;
}

void paging_mark_pfn_dirty(struct domain *d, pfn_t pfn)
{
    unsigned long gfn = pfn_x(pfn);

    assert(gfn < EMUL_GFNS);

    if ( !d->log_dirty )
        return;

    paging_lock(d);
    if ( !d->dirty[gfn] )
    {
        d->dirty[gfn] = true;
        kemari_log_dirty(d, pfn);
    }
    paging_unlock(d);
}

void paging_mark_pfn_clean(struct domain *d, pfn_t pfn)
{
    assert(!d->paging_locked);
    assert(pfn_x(pfn) < EMUL_GFNS);

    paging_lock(d);
    d->dirty[pfn_x(pfn)] = false;
    paging_unlock(d);
}

int p2m_change_type_one(struct domain *d, unsigned long gfn, int ot, int nt)
{
    assert(d->p2m.locked && !d->paging_locked);
    assert((ot == p2m_ram_rw && nt == p2m_ram_logdirty) ||
           (ot == p2m_ram_logdirty && nt == p2m_ram_rw));

    if ( gfn >= EMUL_GFNS || gfn == emul_removed_gfn ||
         d->writable[gfn] != (ot == p2m_ram_rw) )
        return -EBUSY;
    if ( gfn == emul_stuck_gfn )
        return -ENOMEM;

    d->writable[gfn] = nt == p2m_ram_rw;

    return 0;
}

void p2m_flush_hardware_cached_dirty(struct domain *d)
{
    assert(!d->paging_locked && !d->p2m.locked);
    if ( emul_flush_hook )
        emul_flush_hook(d);
}

void process_pending_softirqs(void)
{
    unsigned int i;

    assert(!guest.paging_locked && !guest.p2m.locked && !guest.event_lock.held);
    assert(!guest.kemari || !guest.kemari->buffer_lock.held);
    for ( i = 0; i < EMUL_PORTS; i++ )
        assert(!guest.evtchn[i].lock.held);
}

bool hypercall_preempt_check(void)
{
    return emul_preempt && !--emul_preempt;
}

void emul_write(unsigned long gfn)
{
    /* A fault makes the page writable after it was marked, and only then. */
    if ( guest.writable[gfn] )
        return;

    paging_mark_pfn_dirty(&guest, _pfn(gfn));
    guest.writable[gfn] = true;

    p2m_lock(&guest.p2m);
    kemari_dirty_near(&guest, _gfn(gfn));
    p2m_unlock(&guest.p2m);
}

void emul_send(evtchn_port_t port)
{
    struct vcpu *prev = current;
    int rc;

    current = guest.vcpu[0];
    rc = evtchn_send(&guest, port);
    current = prev;
    assert(!rc);
}

void emul_raise(evtchn_port_t port)
{
    struct evtchn *chn = evtchn_from_port(&guest, port);

    evtchn_read_lock(chn);
    evtchn_port_set_pending(&guest, chn->notify_vcpu_id, chn);
    evtchn_read_unlock(chn);
}

static void init_domain(struct domain *d, domid_t domid)
{
    unsigned int i;

    memset(d, 0, sizeof(*d));
    d->domain_id = domid;
    d->max_vcpus = 2;
    d->max_grant_frames = 64;
    for ( i = 0; i < d->max_vcpus; i++ )
    {
        d->vcpus[i].domain = d;
        d->vcpus[i].vcpu_id = i;
        d->vcpu[i] = &d->vcpus[i];
        d->vcpus[i].fifo_control = INVALID_PADDR;
    }
    d->valid_evtchns = EMUL_PORTS;
    d->max_evtchn_port = EMUL_PORTS - 1;
    d->evtchn_port_ops = &port_ops;
    for ( i = 0; i < EMUL_PORTS; i++ )
        d->evtchn[i].port = i;
    d->p2m.max_mapped_pfn = EMUL_GFNS - 1;
    d->arch.emulation_flags = X86_EMU_LAPIC;
}

void emul_init(void)
{
    unsigned int i;

    setvbuf(stdout, NULL, _IOLBF, 0);
    init_domain(&guest, 7);
    init_domain(&dom0, 0);
    current = dom0.vcpu[0];

    for ( i = 1; i <= 16; i++ )
    {
        guest.evtchn[i].state = ECS_INTERDOMAIN;
        guest.evtchn[i].u.interdomain.remote_dom = &dom0;
        guest.evtchn[i].u.interdomain.remote_port = 100 + i;
        guest.evtchn[i].notify_vcpu_id = i % 2;
    }

    emul_fail_alloc = -1;
    emul_preempt = 0;
    emul_mb_count = 0;
    emul_removed_gfn = ~0UL;
    emul_tsc_skew = 0;
    emul_flush_hook = NULL;
    emul_log_nr = 0;
}

void emul_destroy(void)
{
    emul_fail_alloc = -1;
    guest.is_dying = true;
    assert(!kemari_teardown(&guest));
    kemari_destroy(&guest);
    assert(!guest.kemari);
    assert(!emul_pages);
    assert(!guest.paging_locked && !guest.p2m.locked);
}

/*
 * Local variables:
 * mode: C
 * c-file-style: "BSD"
 * c-basic-offset: 4
 * indent-tabs-mode: nil
 * End:
 */
