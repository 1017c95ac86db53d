// Command kvasir serves language models with an exact prefix cache. See README.md.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	// The first signal drains, a second one ends at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop()
	}()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "kvasir:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:   "kvasir",
		Short: "LLM inference server with an exact prefix cache",
		Long: `Kvasir runs language models on the CPU and keeps the attention state (KV) of every prompt's beginning, so that a prompt
that begins the same way is answered many times sooner, with the very same bits.`,
		Example: `  kvasir serve                          # the default model on http://127.0.0.1:8080
  kvasir serve --model ./model.gguf     # a file of yours
  kvasir run                            # chat in the terminal`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	c.AddCommand(serveCommand(), runCommand(), pullCommand(), lsCommand(), keysCommand(), benchCommand(), versionCommand())
	return c
}
