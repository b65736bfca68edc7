/* SPDX-License-Identifier: GPL-2.0-only */
/* Stands in for xen/arch/x86/kemari.c where it is not under test. */
#include "emul.h"
#include "test.h"

bool stub_starting_vcpu;
int stub_check, stub_save = 64, stub_restore;

int arch_kemari_check(struct domain *d) { return stub_check; }
unsigned int arch_kemari_always_max(const struct domain *d) { return 600; }
size_t arch_kemari_state_max(struct domain *d) { return 5000; }

bool arch_kemari_starting_vcpu(const struct domain *d)
{
    return stub_starting_vcpu;
}

unsigned int arch_kemari_list_always(struct kemari *k)
{
    unsigned int i;

    for ( i = 0; i < k->always_max; i++ )
        k->always[i] = i;

    return k->always_max;
}

int arch_kemari_save(struct kemari *k)
{
    memset(k->state, 0xa5, k->state_max);
    return stub_save;
}

int arch_kemari_restore(struct kemari *k, const void *buf, unsigned int size)
{
    k->changed = true;
    return stub_restore;
}

void arch_kemari_resume(struct kemari *k) {}

/*
 * Local variables:
 * mode: C
 * c-file-style: "BSD"
 * c-basic-offset: 4
 * indent-tabs-mode: nil
 * End:
 */
