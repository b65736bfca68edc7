// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/kemari-ft/kemari/toolstack/control"
	"github.com/spf13/cobra"
)

func statusCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [GUEST]",
		Short: "Show what is protected, and what it waits for",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			r := control.Request{Op: control.OpStatus, Syncs: asJSON}
			if len(args) == 1 {
				r.Guest = args[0]
			}
			reply, err := ask(r)
			if err != nil {
				return err
			}
			if asJSON {
				out := json.NewEncoder(os.Stdout)
				out.SetIndent("", "  ")
				return out.Encode(reply)
			}
			return show(reply.Guests)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "everything that is known, for programs")
	return cmd
}

func show(guests []control.Guest) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "Name\tID\tRole\tState\tGeneration\tEpoch\tPeer")
	for _, g := range guests {
		id := "-"
		if g.DomID != 0 {
			id = fmt.Sprint(g.DomID)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\n", g.Name, id, g.Role, g.State, g.Generation, g.Epoch, g.Peer)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, g := range guests {
		if g.Waiting != "" {
			fmt.Printf("%s: %s\n", g.Name, g.Waiting)
		}
		if g.Text != "" {
			fmt.Printf("%s: %s\n", g.Name, g.Text)
		}
		if g.Dropped != 0 {
			fmt.Printf("%s: %d streams or epochs of the peer were refused as torn, corrupt or out of order\n", g.Name, g.Dropped)
		}
	}
	return nil
}
