// SPDX-License-Identifier: Apache-2.0

package secondary

import (
	"fmt"

	"github.com/kemari-ft/kemari/toolstack/link"
	"github.com/kemari-ft/kemari/toolstack/replica"
	"github.com/kemari-ft/kemari/toolstack/stream"
)

// act executes one action. An error ends the receiver.
func (r *Receiver) act(a replica.Action) error {
	switch a := a.(type) {
	case replica.Persist:
		return r.cfg.Host.Records.Persist(a.Record)
	case replica.Report:
		r.log.Info(a.Text, r.who()...)
		r.status.say(a.Text)
	case replica.Hangup:
		r.log.Debug("hanging up", r.who("why", a.Why)...)
		r.hangup()
	case replica.SendHello:
		hello := r.cfg.Host.Identity.Hello(stream.Secondary, r.cfg.Guest, r.domid)
		hello.Generation, hello.Epoch = a.Generation, a.Epoch
		if r.say(func(c *link.Conn) error { return c.Hello(hello) }) {
			r.pulse.Over(r.conn, a.Generation)
		}
	case replica.SendRefuse:
		if conn := r.conn; conn != nil {
			r.conn = nil
			r.helpers.Go(func() { conn.Refuse(a.Refuse) })
		}
	case replica.SendAck:
		r.say(func(c *link.Conn) error { return c.Ack(a.Generation, a.Epoch) })
		if a.Epoch == 1 && r.apply != nil { // its memory came in batches
			r.enqueue(job{nodes: r.machine.Stage().Xenstore})
		}
	case replica.SendDiscarded:
		r.say(func(c *link.Conn) error { return c.Discarded(a.Generation) })
	case replica.BuildShell:
		if err := r.buildShell(a.Shell); err != nil {
			return r.shellFailed(err)
		}
	case replica.DestroyShell:
		r.dropShell()
		if err := r.destroyShell(); err != nil {
			// It holds memory, but no right to run: nothing else depends
			// on its end.
			r.log.Error("destroying the shell", r.who("error", err)...)
		}
	case replica.Apply:
		var nodes []byte
		if a.Epoch.Xenstore != nil {
			nodes = r.machine.Stage().Xenstore // a copy, never changed
		}
		r.enqueue(job{a.Epoch, nodes})
	case replica.Fence:
		r.helpers.Go(func() {
			err := r.cfg.Host.Fence(r.ctx, a.Why)
			r.post(replica.FenceDone{Err: err})
		})
	case replica.Activate:
		return r.activate(a)
	default:
		return fmt.Errorf("action %T is not known to the secondary", a)
	}
	return nil
}

// say sends something, if there is still a connection.
func (r *Receiver) say(what func(*link.Conn) error) bool {
	if r.conn == nil {
		return false
	}
	if err := what(r.conn); err != nil {
		r.conn.Close() // its reader tells the end
		return false
	}
	return true
}
