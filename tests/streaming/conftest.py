"""The files of these tests are their own."""

from ..trials import no_trials as no_trials
