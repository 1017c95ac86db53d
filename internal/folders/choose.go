package folders

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"kvasir/internal/gguf"
)

// companions are words in the names of .gguf files that go with a model and are none: image projectors, importance matrices, draft heads.
var companions = []string{"mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-"}

// IsModel says whether the name is one that a model's weights may have.
func IsModel(name string) bool {
	base := strings.ToLower(path.Base(name))
	return strings.HasSuffix(base, ".gguf") && !slices.ContainsFunc(companions, func(c string) bool { return strings.Contains(base, c) })
}

// usual are the quantisations that a repository without a tag means, as with llama.cpp.
var usual = []string{"Q4_K_M", "Q8_0"}

// Choose picks the file that a tag such as "Q4_K_M" means among the names of a repository's files, in any case; of a split model the first part. The
// file's name ends in the tag, or it lies in a directory of that name, or else has the tag somewhere. Without a tag it is Q4_K_M, else
// Q8_0, else the first model. ok is false if there is none.
func Choose(names []string, tag string) (name string, ok bool) {
	var models []string
	for _, n := range names {
		if _, part, _, split := gguf.SplitName(n); IsModel(n) && (!split || part == 1) {
			models = append(models, n)
		}
	}
	tags := []string{tag}
	if tag == "" {
		tags = usual
	}
	for _, t := range tags {
		t = regexp.QuoteMeta(t)
		for _, pattern := range []string{
			`(^|[-./])` + t + `$`,         // model-Q4_K_M
			`(^|[-./_])` + t + `$`,        // model_q4_k_m
			`(^|/)([^/]*-)?` + t + `/`,    // Q4_K_M/model
			`(^|[-./_])` + t + `([-.]|$)`, // model-Q4_K_M-v2
		} {
			re := regexp.MustCompile(`(?i)` + pattern)
			for _, m := range models {
				if re.MatchString(stem(m)) {
					return m, true
				}
			}
		}
	}
	if tag == "" && len(models) > 0 {
		return models[0], true
	}
	return "", false
}

// stem is a name without its ending, and without the number of a part.
func stem(name string) string {
	if s, _, _, ok := gguf.SplitName(name); ok {
		return s
	}
	return name[:len(name)-len(".gguf")]
}

var tagAtEnd = regexp.MustCompile(`(?i)[-.]((UD-)?[A-Z0-9_]+)$`)

// Tags lists the tags that lead to the models among names, for an error about one that does not.
func Tags(names []string) []string {
	var out []string
	for _, n := range names {
		if !IsModel(n) {
			continue
		}
		if m := tagAtEnd.FindStringSubmatch(stem(n)); m != nil {
			if t := strings.ToUpper(m[1]); !slices.Contains(out, t) {
				out = append(out, t)
			}
		}
	}
	slices.Sort(out)
	return out
}
