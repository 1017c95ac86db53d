package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"kvasir/internal/config"
	"kvasir/internal/llm"
	"kvasir/internal/pipeline"
	"kvasir/internal/store/disk"
)

func runCommand() *cobra.Command {
	var s config.Serve
	var system string
	var temperature float32
	var maxTokens int
	c := &cobra.Command{
		Use:   "run [MODEL]",
		Short: "Chat with a model in the terminal, and see what each turn reuses",
		Long: `Chat with a model in the terminal. After each answer a line says how many tokens of the prompt came from the cache, how many
were computed, and how long it took. /reset begins anew, /quit or end of input ends.`,
		Example: "  kvasir run\n  kvasir run ollama:gemma3:270m\n  kvasir run ./model.gguf --system 'You answer in one sentence.'\n  echo 'What is a KV cache?' | kvasir run",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := loadSettings(cmd, &s, args); err != nil {
				return err
			}
			if err := s.Validate(); err != nil {
				return err
			}
			ctx := cmd.Context()
			m, err := openModel(ctx, &s, slog.New(slog.DiscardHandler))
			if errors.Is(err, disk.ErrInUse) { // a server beside which one chats
				fmt.Fprintln(os.Stderr, "without the disk cache:", err)
				s.CacheDisk = "0"
				m, err = openModel(ctx, &s, slog.New(slog.DiscardHandler))
			}
			if err != nil {
				return err
			}
			defer m.Close(canceled())
			ch := chat{m: m, ctx: ctx, system: system, sampling: llm.DefaultSampling(), maxTokens: maxTokens, out: cmd.OutOrStdout()}
			ch.sampling.Temperature = temperature
			return ch.loop(cmd.InOrStdin())
		},
	}
	config.Bind(c.Flags(), &s, "config", "model", "model-dir", "hf-endpoint", "offline", "folders", "ctx", "threads", "cache-mem", "block-size", "numerics", "cache-disk", "cache-disk-free", "cache-load", "cache-retention", "cache-write-rate", "data-dir")
	c.Flags().StringVar(&system, "system", "", "system `message`")
	c.Flags().Float32Var(&temperature, "temperature", 0, "`temperature` of sampling; 0 takes the most likely token")
	c.Flags().IntVar(&maxTokens, "max-tokens", 512, "`tokens` that an answer may have")
	return c
}

// canceled is a context that has ended: Close then drops what is still running.
func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

type chat struct {
	m         *opened
	ctx       context.Context
	system    string
	sampling  llm.Sampling
	maxTokens int
	out       io.Writer
	messages  []llm.Message
}

func (c *chat) reset() {
	c.messages = nil
	if c.system != "" {
		c.messages = []llm.Message{{Role: "system", Content: c.system}}
	}
}

// loop reads lines until the input ends. A terminal gets line editing and a history.
func (c *chat) loop(in io.Reader) error {
	c.reset()
	read := lines(in)
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(c.out, "%s on %s, context %d tokens. /reset begins anew, /quit ends.\n", c.m.Models()[0].ID, c.m.path, c.m.Models()[0].Context)
		read = c.terminal(f)
	}
	for {
		line, err := read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch line = strings.TrimSpace(line); line {
		case "":
			continue
		case "/quit", "/exit", "/bye":
			return nil
		case "/reset":
			c.reset()
			continue
		}
		if err := c.turn(line); err != nil {
			if c.ctx.Err() != nil {
				return nil
			}
			fmt.Fprintln(c.out, "error:", err)
		}
	}
}

func lines(in io.Reader) func() (string, error) {
	sc := bufio.NewScanner(in)
	sc.Buffer(nil, 1<<20)
	return func() (string, error) {
		if !sc.Scan() {
			if err := sc.Err(); err != nil {
				return "", err
			}
			return "", io.EOF
		}
		return sc.Text(), nil
	}
}

// terminal reads with line editing; the terminal is in raw mode only while a line is typed, so that answers print as usual
// and Ctrl-C ends the program.
func (c *chat) terminal(f *os.File) func() (string, error) {
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{f, os.Stdout}, ">>> ")
	return func() (string, error) {
		old, err := term.MakeRaw(int(f.Fd()))
		if err != nil {
			return "", err
		}
		defer term.Restore(int(f.Fd()), old)
		return t.ReadLine()
	}
}

// turn sends one message and prints the answer and what was reused.
func (c *chat) turn(text string) error {
	messages := append(c.messages, llm.Message{Role: "user", Content: text})
	r := &llm.Request{ID: "run", Tenant: "default", Model: c.m.Models()[0].ID, Prompts: []llm.Prompt{{Messages: messages}}, N: 1,
		MaxTokens: c.maxTokens, Sampling: c.sampling, Logprobs: -1}
	r.Sampling.Seed = pipeline.NewSeed()
	start := time.Now()
	st, err := c.m.Generate(c.ctx, r)
	if err != nil {
		return err
	}
	defer st.Close()
	var answer strings.Builder
	var first time.Duration
	for {
		e, err := st.Next(c.ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if first == 0 {
			first = time.Since(start)
		}
		answer.WriteString(e.Text)
		fmt.Fprint(c.out, e.Text)
	}
	c.messages = append(messages, llm.Message{Role: "assistant", Content: answer.String()})
	u, d := st.Usage(), st.Timings().Decode
	rate := ""
	if u.CompletionTokens > 1 && d > 0 {
		rate = fmt.Sprintf(", then %.0f tokens/s", float64(u.CompletionTokens-1)/d)
	}
	fmt.Fprintf(c.out, "\n[%d prompt tokens: %d from the cache, %d computed; first token after %.1f ms%s]\n",
		u.PromptTokens, u.CachedTokens, u.PromptTokens-u.CachedTokens, float64(first.Microseconds())/1000, rate)
	return nil
}
