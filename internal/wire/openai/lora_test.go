package openai

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"kvasir/internal/llm"
)

func TestLora(t *testing.T) {
	body := func(v string) []byte { return []byte(`{"model":"m","prompt":"x","lora":` + v + `}`) }
	for v, want := range map[string]string{
		`null`:                   "[]",
		`[]`:                     "[]",
		`[{"name":"a"}]`:         "[a/0]",
		`[{"id":0,"scale":0.5}]`: "[/0*0.5]",
		`[{"scale":-2,"id":3,"name":null},{"name":"b/c","scale":0}]`: "[/3*-2 b/c/0*0]",
	} {
		c, err := Decode(Completions, body(v))
		if err != nil {
			t.Errorf("%s: %v", v, err)
			continue
		}
		var got []string
		for _, a := range c.Request.Adapters {
			s := fmt.Sprintf("%s/%d", a.Name, a.ID)
			if a.Scale != nil {
				s += fmt.Sprintf("*%v", *a.Scale)
			}
			got = append(got, s)
		}
		if fmt.Sprint(got) != want {
			t.Errorf("%s: %v, want %s", v, got, want)
		}
	}
	for _, v := range []string{
		`"a"`, `{"name":"a"}`, `["a"]`, `[{}]`, `[null]`, `[{"scale":1}]`, `[{"name":"a","id":1}]`, `[{"name":""}]`, `[{"id":-1}]`, `[{"id":1.5}]`, `[{"id":"0"}]`,
		`[{"id":0,"scale":1001}]`, `[{"id":0,"scale":"1"}]`, `[{"id":0,"weight":1}]`, `[` + strings.Repeat(`{"id":1},`, MaxAdapters) + `{"id":1}]`, `[{"name":"` + strings.Repeat("a", MaxNameLen+1) + `"}]`,
	} {
		_, err := Decode(Completions, body(v))
		var e *llm.Error
		if !errors.As(err, &e) || e.Kind != llm.KindInvalid || !strings.HasPrefix(e.Param, "lora") {
			t.Errorf("%s: %v", v, err)
		}
	}
}

func TestModelOfAnAdapter(t *testing.T) {
	got := string(AppendModels(nil, []llm.ModelInfo{{ID: "m", Created: 1, Context: 2}, {ID: "a", Parent: "m", Created: 1, Context: 2}}))
	want := `{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"kvasir","max_model_len":2},{"id":"a","object":"model","created":1,"owned_by":"kvasir","max_model_len":2,"parent":"m"}]}`
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
