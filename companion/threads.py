"""Run independent jobs of a notebook side by side."""

from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm


def side_by_side(work, jobs, label):
    """Apply a function to every job, on as many threads as torch has, with a progress bar.

    On shared cores the threads of one small product mostly wait for each other, so each job gets
    one torch thread. The order and the results do not depend on the number of threads, provided
    that no two jobs share a random generator.

    work: function of one job. jobs: list. label: text of the bar.
    Returns the list of results in the order of the jobs; raises what a job raised.
    """
    import torch  # late: only notebooks with such jobs need it

    workers = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(workers) as pool:
            return list(tqdm(pool.map(work, jobs), total=len(jobs), desc=label))
    finally:
        torch.set_num_threads(workers)
