package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"kvasir/internal/kernel"
	"kvasir/internal/machine"
)

// version is set by release builds with -ldflags "-X main.version=v1.2.3".
var version string

// versionString is the release, or what the Go toolchain knows of the source.
func versionString() string {
	if version != "" {
		return version
	}
	v, rev, dirty := "dev", "", ""
	if bi, ok := debug.ReadBuildInfo(); ok {
		if m := bi.Main.Version; m != "" && m != "(devel)" {
			v = m
		}
		for _, s := range bi.Settings {
			switch {
			case s.Key == "vcs.revision" && len(s.Value) >= 12:
				rev = "+" + s.Value[:12]
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = "-dirty"
			}
		}
	}
	return v + rev + dirty
}

func versionCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the version, the platform and the CPU paths of this machine",
		Example: "  kvasir version\n  kvasir version --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var paths []string
			for _, p := range kernel.Available() {
				paths = append(paths, p.String())
			}
			info := struct {
				Version  string   `json:"version"`
				Go       string   `json:"go"`
				Platform string   `json:"platform"`
				CPU      string   `json:"cpu"`
				Paths    []string `json:"cpu_paths"`
				Numerics int      `json:"numerics_revision"`
			}{versionString(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, machine.CPUModel(), paths, kernel.Revision}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(info)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "kvasir %s\n%s %s\n%s\nCPU paths, best first: %v\nnumerics revision %d\n",
				info.Version, info.Go, info.Platform, info.CPU, info.Paths, info.Numerics)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
