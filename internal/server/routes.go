package server

import (
	"net/http"
	"slices"
	"strings"

	"kvasir/internal/llm"
	"kvasir/internal/wire/openai"
)

func (s *Server) listModels(x *exchange) *llm.Error {
	_ = x.sendJSON(http.StatusOK, openai.AppendModels(nil, s.gen.Models()))
	return nil
}

// getModel takes everything behind the prefix as the name, since names may have slashes.
func (s *Server) getModel(x *exchange) *llm.Error {
	name := strings.TrimPrefix(x.r.URL.Path, modelsPrefix)
	models := s.gen.Models()
	i := slices.IndexFunc(models, func(m llm.ModelInfo) bool { return serves(m, name) })
	if i < 0 {
		return unknownModel(models, name)
	}
	_ = x.sendJSON(http.StatusOK, openai.AppendModel(nil, name, models[i]))
	return nil
}

// health says that the process answers.
func (s *Server) health(x *exchange) *llm.Error {
	_ = x.sendJSON(http.StatusOK, []byte(`{"status":"ok"}`))
	return nil
}

// ready says whether a new request would be taken.
func (s *Server) ready(x *exchange) *llm.Error {
	status, body := http.StatusOK, `{"status":"ready"}`
	switch {
	case s.gate.closed():
		status, body = http.StatusServiceUnavailable, `{"status":"draining"}`
	case !s.gen.Ready():
		status, body = http.StatusServiceUnavailable, `{"status":"starting"}`
	}
	if status != http.StatusOK {
		x.w.Header().Set("Retry-After", "1")
	}
	_ = x.sendJSON(status, []byte(body))
	return nil
}

func (s *Server) showMetrics(x *exchange) *llm.Error {
	if err := s.access.admin(x.r); err != nil {
		return err
	}
	x.status = http.StatusOK
	s.scrape.ServeHTTP(x.w, x.r)
	return nil
}
