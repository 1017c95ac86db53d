package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"kvasir/internal/auth"
)

func keysCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "keys",
		Short: "Make, list and remove API keys of a file for --api-keys",
		Long: `The file holds hashes of keys and the tenant that each belongs to. Prompts of different tenants never share cached state;
several keys may belong to one tenant.`,
		Example: `  kvasir keys add keys.yaml team-a      # prints the new key, once
  kvasir keys ls keys.yaml
  kvasir keys rm keys.yaml sha256:ab12…
  kvasir serve --api-keys keys.yaml`,
	}
	c.AddCommand(&cobra.Command{
		Use: "add FILE TENANT", Short: "Make a key for a tenant and print it; the file keeps only its hash", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := auth.Add(args[0], args[1])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), key)
			return err
		},
	}, &cobra.Command{
		Use: "ls FILE", Short: "List hashes and tenants", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			es, err := auth.List(args[0])
			for _, e := range es {
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", e.Hash, e.Tenant)
			}
			return err
		},
	}, &cobra.Command{
		Use: "rm FILE HASH", Short: "Remove a key by its hash", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := auth.Remove(args[0], args[1])
			if err == nil {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d removed\n", n)
			}
			return err
		},
	})
	return c
}
