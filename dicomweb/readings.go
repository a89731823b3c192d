package dicomweb

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// Readings tells how far a study has come. It is no DICOMweb resource: it serves people and programs that wait for a report.
type Readings interface {
	// Status returns where the study stands; pipeline.ErrNotFound if nothing of it is here.
	Status(ctx context.Context, studyUID string) (pipeline.Status, error)
	// Preview returns the picture that the model saw, a PNG file; pipeline.ErrNotFound if the study was not read.
	Preview(ctx context.Context, studyUID string) ([]byte, error)
	// Heat returns a heat map of a sentence of the report, counted from 1, a PNG file; errors as Preview's, and pipeline.ErrUnsupported
	// where the model has none.
	Heat(ctx context.Context, studyUID string, sentence int) ([]byte, error)
	// Release lets a held report go; pipeline.ErrConflict if the study's is not held.
	Release(ctx context.Context, studyUID, by string) error
	// Force has a study read as it is, without waiting for more; pipeline.ErrConflict if it does not wait.
	Force(ctx context.Context, studyUID, by string) error
	// Lives returns up to most studies behind a UID, in the order of their UIDs: those in a state, or all where that is empty.
	Lives(ctx context.Context, state pipeline.State, after string, most int) ([]pipeline.Life, error)
	// Changes returns the steps of a study's life, the first one first.
	Changes(ctx context.Context, studyUID string) ([]pipeline.Change, error)
	// Records returns the records of a study, oldest first.
	Records(ctx context.Context, studyUID string) ([]pipeline.Record, error)
}

// maxLives is how many studies one answer lists at most.
const maxLives = 1000

// readings answers GET readings: where studies stand, page by page.
func (s *server) readings(c *gin.Context) error {
	after, most, err := page(c)
	if err != nil {
		return err
	}
	state := pipeline.State(c.Query("state"))
	if state != "" && !slices.Contains(pipeline.States, state) {
		return fmt.Errorf("%w: state is not one of %v", pipeline.ErrInvalid, pipeline.States)
	}
	lives, err := s.Readings.Lives(c.Request.Context(), state, after, most)
	if err != nil {
		return err
	}
	answer := gin.H{"studies": append([]pipeline.Life{}, lives...)}
	if len(lives) == most {
		answer["next"] = lives[most-1].StudyInstanceUID // as after, for the next page
	}
	c.JSON(http.StatusOK, answer)
	return nil
}

// timeline answers GET {study}/reading/timeline with the steps of the study's life.
func (s *server) timeline(c *gin.Context, study string) error {
	st, err := s.Readings.Status(c.Request.Context(), study)
	if err != nil {
		return err
	}
	steps, err := s.Readings.Changes(c.Request.Context(), study)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, gin.H{"study_instance_uid": study, "state": st.State, "steps": append([]pipeline.Change{}, steps...)})
	return nil
}

// records answers GET {study}/reading/records with all records of the study.
func (s *server) records(c *gin.Context, study string) error {
	if _, err := s.Readings.Status(c.Request.Context(), study); err != nil {
		return err
	}
	records, err := s.Readings.Records(c.Request.Context(), study)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, gin.H{"study_instance_uid": study, "records": append([]pipeline.Record{}, records...)})
	return nil
}

// reading answers GET {study}/reading with the study's state and the record that it goes by as JSON (docs/report-json.md).
func (s *server) reading(c *gin.Context, study string) error {
	st, err := s.Readings.Status(c.Request.Context(), study)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, st)
	return nil
}

// readingImage answers GET {study}/reading/image with the picture that the model saw.
func (s *server) readingImage(c *gin.Context, study string) error {
	png, err := s.Readings.Preview(c.Request.Context(), study)
	if err != nil {
		return err
	}
	c.Data(http.StatusOK, "image/png", png)
	return nil
}

// readingRelease answers POST {study}/reading/release: the held report is written and delivered. It answers with the state then.
func (s *server) readingRelease(c *gin.Context, study string) error {
	by := c.GetString(principalKey)
	// Who asked may go away in the middle; what has begun is finished.
	if err := s.Readings.Release(context.WithoutCancel(c.Request.Context()), study, by); err != nil {
		return err
	}
	s.Log.Info().Str("study", study).Str("by", by).Str("client", c.ClientIP()).Msg("a held report was released")
	return s.reading(c, study)
}

// readingForce answers POST {study}/reading/force: the study is read without waiting for more images. It answers with the state then.
func (s *server) readingForce(c *gin.Context, study string) error {
	if err := s.Readings.Force(context.WithoutCancel(c.Request.Context()), study, c.GetString(principalKey)); err != nil {
		return err
	}
	return s.reading(c, study)
}

// readingHeat answers GET {study}/reading/heatmap?sentence=N with where the sentence rests on the picture that the model saw.
func (s *server) readingHeat(c *gin.Context, study string) error {
	n, err := strconv.Atoi(c.DefaultQuery("sentence", "1"))
	if err != nil || n < 1 {
		return fmt.Errorf("%w: sentence is the number of a sentence, from 1", pipeline.ErrInvalid)
	}
	png, err := s.Readings.Heat(c.Request.Context(), study, n)
	if err != nil {
		return err
	}
	c.Data(http.StatusOK, "image/png", png)
	return nil
}
