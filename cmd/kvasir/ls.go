package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"kvasir/internal/config"
	"kvasir/internal/folders"
	"kvasir/internal/gguf"
	"kvasir/internal/hub"
	"kvasir/internal/pipeline"
)

func lsCommand() *cobra.Command {
	var s config.Serve
	c := &cobra.Command{
		Use:   "ls",
		Short: "List the models on this machine and those of the catalog",
		Long: `List the models that can be named in serve, run and pull: those that Kvasir has fetched, those in the folders of the Hugging Face cache, LM
Studio, Ollama and llama.cpp, and those of the catalog. RUNS says whether Kvasir can run a model, and why not. Nothing is changed.`,
		Example: "  kvasir ls\n  kvasir run ollama:gemma3:270m",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := config.Load(cmd.Flags()); err != nil {
				return err
			}
			o := hubOptions(&s, cmd.ErrOrStderr())
			rows, err := listModels(o)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tSIZE\tARCH\tQUANT\tCONTEXT\tWHERE\tRUNS")
			for _, r := range rows {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.name, r.size, r.arch, r.quant, r.context, r.where, r.runs)
			}
			return w.Flush()
		},
	}
	config.Bind(c.Flags(), &s, "config", "model-dir", "folders")
	return c
}

// A listedModel is a line of ls.
type listedModel struct {
	name, size, arch, quant, context, where, runs string
}

// listModels lists our own models, those of other programs, and what of the catalog is not here.
func listModels(o hub.Options) ([]listedModel, error) {
	local, err := hub.List(o)
	if err != nil {
		return nil, err
	}
	var out []listedModel
	here := map[string]bool{}
	for _, l := range local {
		here[l.Name] = true
		name := l.Name
		if !inCatalog(name) && len(l.Refs) > 0 {
			name = l.Refs[0]
		}
		out = append(out, lineOf(name, l.Path, l.Bytes, l.Problem))
	}
	for _, m := range folders.Find(o.Folders) {
		out = append(out, lineOf(m.Ref, m.Path, m.Bytes, m.Problem))
	}
	for _, e := range hub.Catalog() {
		if !here[e.Name] {
			out = append(out, listedModel{name: e.Name, size: mebibytes(uint64(e.Bytes)), runs: "yes", where: "not fetched: kvasir pull " + e.Name})
		}
	}
	return out, nil
}

func inCatalog(name string) bool {
	for _, e := range hub.Catalog() {
		if e.Name == name {
			return true
		}
	}
	return false
}

// lineOf looks into a model unless there is a problem already. What a file says of itself is printed only where it is harmless.
func lineOf(name, path string, bytes int64, problem string) listedModel {
	l := listedModel{name: printable(name), size: mebibytes(uint64(bytes)), where: printable(path), runs: "no: " + printable(problem)}
	if problem != "" {
		return l
	}
	s, err := pipeline.Describe(path)
	l.arch, l.quant = printable(s.Arch), s.Quant
	if s.Context > 0 {
		l.context = strconv.Itoa(s.Context)
	}
	switch {
	case err == nil:
		l.runs = "yes"
	case errors.Is(err, gguf.ErrFormat):
		l.runs = "no: damaged: " + printable(strings.TrimPrefix(err.Error(), path+": "))
	default:
		l.runs = "no: " + printable(err.Error())
	}
	return l
}

// printable keeps control characters of names and files off the terminal and lines in one line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
